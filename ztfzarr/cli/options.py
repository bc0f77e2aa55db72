"""Options that commands share, and how numbers are shown."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

DATE: Final = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})")
ALL_NIGHTS: Final = (0, 99999999)


class Nights(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on only
    """A night, 2020-08-01, or a range FROM:TO with both ends, either of which may be left out."""

    name = "night"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return the first and last night as integers YYYYMMDD."""
        if isinstance(value, tuple):
            return value
        first, colon, last = str(value).partition(":")
        nights = [
            _night(text) if text else default for text, default in zip((first, last), ALL_NIGHTS, strict=True)
        ]
        if (not colon and not first) or None in nights:
            self.fail(f"{value!r} is no night: expected 2020-08-01 or 2020-08-01:2020-08-31", param, ctx)
        low, high = int(nights[0] or 0), int(nights[1] or 0)
        if colon and low > high:
            self.fail(f"{value!r} ends before it begins: expected FROM:TO", param, ctx)
        return (low, high) if colon else (low, low)


def _night(text: str) -> int | None:
    import datetime

    match = DATE.fullmatch(text)
    try:
        return int(datetime.date(*(int(part) for part in match.groups())).strftime("%Y%m%d")) if match else None
    except ValueError:
        return None


class Ccds(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on only
    """CCDs, 1,2 or 1-4,9."""

    name = "ccds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the CCDs, sorted, each once."""
        if isinstance(value, tuple):
            return value
        ccds: set[int] = set()
        for part in str(value).split(","):
            match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
            span = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
            if not span or span[0] < 1 or span[-1] > 16:
                self.fail(f"{value!r}: expected CCDs from 1 to 16, as in 1,2 or 1-4,9", param, ctx)
            ccds.update(span)
        return tuple(sorted(ccds))


PRODUCT_KINDS: Final = ("bias", "pocket", "flat", "science", "stars", "starflat")


class Kind(click.Choice):  # type: ignore[type-arg]  # generic from click 8.2 on only
    """A kind of product; of one that a command does not know it says what else does, or which was meant.

    Parameters
    ----------
    choices : sequence of str
        Kinds that the command knows.
    elsewhere : str
        What it says of other kinds of products.
    """

    def __init__(self, choices: Sequence[str], elsewhere: str = "") -> None:
        super().__init__(choices)
        self._elsewhere = elsewhere

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the kind."""
        import difflib

        if self._elsewhere and value in PRODUCT_KINDS and value not in self.choices:
            self.fail(f"{value!r} {self._elsewhere}", param, ctx)
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            close = difflib.get_close_matches(str(value), list(self.choices), 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            self.fail(f"{error.message}{hint}", param, ctx)


class Shape(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on only
    """Rows and columns, 616x512."""

    name = "rowsxcolumns"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return rows and columns."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)x(\d+)", str(value))
        if match is None:
            self.fail(f"{value!r}: expected rows x columns, as in 3080x3072", param, ctx)
        return int(match[1]), int(match[2])


class StorageOption(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on only
    """KEY=VALUE of an object store. Its text is never repeated: it may be a secret."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return key and value."""
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not equals or not key:
            self.fail("expected KEY=VALUE, as in endpoint=https://s3.example.org", param, ctx)
        return key, text


_MANY: Final[dict[str, Any]] = {"multiple": True, "type": StorageOption(), "metavar": "KEY=VALUE"}


def _opening(argument: str, option: str, described: str) -> Callable[[Command], Command]:
    """Make a decorator that adds an argument, a store, and its option; the command gets ``Objects``."""
    given = option.strip("-").replace("-", "_")

    def add(command: Command) -> Command:
        @functools.wraps(command)
        def opening(*args: Any, **kwargs: Any) -> Any:
            from ztfzarr.store.objects import open_objects

            if not kwargs[argument]:
                raise click.UsageError(f"{argument.upper()} is empty: expected a folder or a URL")
            kwargs[argument] = open_objects(kwargs[argument], dict(kwargs.pop(given)))
            return command(*args, **kwargs)

        with_option = click.option(option, given, **_MANY, help=described)(opening)
        return click.argument(argument)(with_option)  # type: ignore[return-value]

    return add


store_argument = _opening(
    "store",
    "--storage-option",
    "Setting of an object store by obstore's name, as endpoint=…; default from the environment.",
)
dest_argument = _opening("dest", "--dest-option", "The same of DEST; default from the environment, not STORE's.")


def source_options(command: Command) -> Command:
    """Add ``--source-option``, for raw files in object stores; a dict, by default that of the store."""

    @functools.wraps(command)
    def telling(*args: Any, source_options: tuple[tuple[str, str], ...], **kwargs: Any) -> Any:
        ctx = click.get_current_context()
        chosen = dict(source_options or ctx.params.get("storage_option", ()))
        return command(*args, source_options=chosen, **kwargs)

    described = "The same for raw files in an object store; default those of STORE."
    return click.option("--source-option", "source_options", **_MANY, help=described)(telling)  # type: ignore[return-value]


def selecting(command: Command) -> Command:
    """Add ``--night`` and ``--ccds``."""
    command = click.option(
        "--ccds",
        type=Ccds(),
        default=tuple(range(1, 17)),
        help="CCDs, as in 1,2 or 1-4,9.",
        show_default="all",
    )(command)
    return click.option(
        "--night",
        "nights",
        type=Nights(),
        default=ALL_NIGHTS,
        help="Night 2020-08-01 or FROM:TO.",
        show_default="all",
    )(command)


def reporting(command: Command) -> Command:
    """Add ``--json`` and ``--quiet``."""
    command = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)
    return click.option("-q", "--quiet", is_flag=True, help="Print refusals and faults only.")(command)


def print_json(result: Any) -> None:
    """Print a result for programs."""
    click.echo(json.dumps(result, indent=1))


def date(night: int) -> str:
    """Write a night YYYYMMDD for people."""
    text = str(night)
    return f"{text[:4]}-{text[4:6]}-{text[6:]}"


def size(count: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"


def counted(count: int, noun: str, nouns: str | None = None) -> str:
    """Write a count with its noun: 1 file, 2 files; ``nouns`` is the plural where it is not noun + s."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {nouns or noun + 's'}"


def ranges(numbers: Sequence[int]) -> str:
    """Write sorted integers as ranges: 1-4,9."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
