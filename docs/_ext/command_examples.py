"""Examples of commands, which their help ends with, as blocks of shell in the command reference."""

import re


def as_block(_app, _ctx, lines):
    """Turn ``Examples:`` and the lines below it into a block of code; other epilogs stay."""
    text = "\n".join(line.removeprefix("|").removeprefix(" ") for line in lines)
    match = re.fullmatch(r"(Examples?:)\n(.*?)\n*", text, re.DOTALL)
    if match:
        block = [f"   {line.strip()}" for line in match[2].split("\n")]
        lines[:] = [match[1], "", ".. code-block:: sh", "", *block, ""]


def setup(app):
    app.connect("sphinx-click-process-epilog", as_block)
    return {"parallel_read_safe": True}
