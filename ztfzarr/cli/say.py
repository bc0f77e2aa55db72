"""What is told to people: in plain characters, whatever a file or a store is named or says of itself."""

from __future__ import annotations

import click


def plain(text: str) -> str:
    r"""Write what a terminal would act on, or not show, as Python would: ``\x1b``, ``\n``.

    So too bytes of file names that are no UTF-8, which no stream could encode.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def say(text: str, *, err: bool = False) -> None:
    """Print one line."""
    click.echo(plain(text), err=err)


def cell(text: str) -> str:
    """Write text into a table of rich's, which takes ``[red]`` for a colour."""
    from rich.markup import escape

    return escape(plain(text))
