"""What commands that make a product share: the options of a version and its recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ztfzarr.recipe import Recipe

Command = Callable[..., Any]


def making(example: str) -> Callable[[Command], Command]:
    """Add ``--version``, ``--recipe``, ``--set`` (with an example) and ``--workers``."""
    options = [
        click.option("--version", default="v1", show_default=True, help="Version to make or to complete."),
        click.option(
            "--recipe", "file", type=click.Path(exists=True, dir_okay=False), help="TOML over the defaults."
        ),
        click.option("--set", "settings", multiple=True, metavar="A.B=C", help=f"One setting, as in {example}."),
        click.option("--workers", type=click.IntRange(1), help="Threads.", show_default="number of cores"),
    ]

    def adding(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return adding


def scheduling(command: Command) -> Command:
    """Add ``--scheduler``."""
    return click.option("--scheduler", metavar="ADDRESS", help="Of a dask cluster to work on, tcp://host:8786.")(
        command
    )


@contextmanager
def readable_files() -> Iterator[None]:
    """Make it wrong usage that a catalogue or a file with a WCS cannot be read."""
    from ztfzarr.errors import RefusedError

    try:
        yield
    except RefusedError as error:
        raise click.UsageError(str(error)) from None


def recipe_of(
    file: str | None, settings: tuple[str, ...], *, masters: str = "v1", base: Recipe | None = None
) -> Recipe | None:
    """Read what was asked for, over the defaults or another base; None if nothing was.

    Raises
    ------
    UsageError
        If the file is no TOML: it is named.
    RecipeError
        If a setting is wrong.
    """
    from ztfzarr.recipe import read_recipe

    if file is None and not settings:
        return None
    return read_recipe("" if file is None else _text_of(file), settings, masters=masters, base=base)


def _text_of(file: str) -> str:
    import tomllib

    try:
        text = Path(file).read_text("utf-8")
        tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise click.UsageError(f"--recipe {file} is no TOML: {error}") from None
    return text
