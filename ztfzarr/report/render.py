"""From data to HTML: everything that is not a template's own is escaped, and nothing is loaded or run."""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from importlib.resources import files
from typing import Any, Final

# Control, format (such as marks that turn the direction of text), surrogates, private use; line separators.
HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def require_extra() -> None:
    """Raise ImportError, saying what to install, if what reports need is not there: before pictures are drawn."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
        import PIL  # noqa: F401
    except ImportError:
        raise ImportError("reports need jinja2, matplotlib and pillow: pip install 'ztfzarr[report]'") from None


def rendered(template: str, **context: Any) -> bytes:
    """Render a template of this package as a page, UTF-8.

    Parameters
    ----------
    template : str
        Its name.
    **context
        Its variables. Texts are shown as they are, characters that hide or turn others by their code.

    Raises
    ------
    ImportError
        As :func:`require_extra`.
    """
    require_extra()
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ztfzarr.report"),
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["counted"] = counted
    style = (files(__package__) / "templates" / "style.css").read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    html = environment.get_template(template).render(style=Markup(style), digest=digest, **context)
    return html.encode()


def counted(count: int, noun: str, nouns: str = "") -> str:
    """Write a count with its noun: 1 file, 2 files; ``nouns`` is the plural where it is not noun + s."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def visible(text: str) -> str:
    """Show characters that cannot be seen, or that hide or turn others, by their code in hexadecimal."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_code(c) if unicodedata.category(c) in HIDDEN else c for c in text)


def _code(character: str) -> str:
    point = ord(character)
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
