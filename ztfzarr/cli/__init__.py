"""The command line: ``ztfzarr COMMAND STORE …``."""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from ztfzarr.cli.say import say
from ztfzarr.errors import RecipeError, RefusedError, StoreError

# Command: where it is, and its line in the help. Loaded when used, so that --help answers at once.
COMMANDS: Final = {
    "simulate": ("ztfzarr.cli.simulate", "Make a night of raw files, with the truth beside it."),
    "ingest": ("ztfzarr.cli.ingest", "Put raw FITS files into the cube of a store."),
    "bias": ("ztfzarr.cli.reduce", "Make the master biases that a store lacks."),
    "pocket": ("ztfzarr.cli.pocket", "Fit the pocket effect, and follow it from night to night."),
    "flat": ("ztfzarr.cli.reduce", "Make the master flats that a store lacks."),
    "science": ("ztfzarr.cli.reduce", "Make the science that a store lacks."),
    "run": ("ztfzarr.cli.reduce", "Make whatever a store lacks: bias, flat, science."),
    "stars": ("ztfzarr.cli.stars", "Find and measure the stars of a store's science."),
    "starflat": ("ztfzarr.cli.starflat", "Fit what dome flats leave, from stars in dithered exposures."),
    "ls": ("ztfzarr.cli.listing", "List the nights of a store."),
    "info": ("ztfzarr.cli.listing", "Say what a store holds, its size, and how to open it."),
    "find": ("ztfzarr.cli.find", "Find the exposures that saw a position, and cut stamps."),
    "show": ("ztfzarr.cli.show", "Draw an image of a store: a quadrant, a CCD or the focal plane."),
    "report": ("ztfzarr.cli.report", "Make a report of a night, or of all, as HTML."),
    "compare": ("ztfzarr.cli.versions", "Say in what two versions of a product differ."),
    "drop": ("ztfzarr.cli.versions", "Delete a version of a product."),
    "verify": ("ztfzarr.cli.verify", "Check every checksum of a store, or the cube against raw files."),
    "export": ("ztfzarr.cli.export", "Write a product of a store as FITS files."),
    "restore": ("ztfzarr.cli.restore", "Write raw FITS files of the cube back."),
    "copy": ("ztfzarr.cli.copy", "Copy part of a store to another."),
    "repair": ("ztfzarr.cli.repair", "Write what is damaged in a store again."),
}

# Files are written under such names first; people know them by the rest.
PARTIAL: Final = re.compile(r"\.[0-9a-f]{32}\.partial$")

EXIT_STATUS: Final = """\b
Exit status:
  0    all done
  1    some inputs were refused or faults found, each named; the rest is done
  2    wrong usage
  3    the store cannot be used: none there, locked, damaged, not writable, or of another format; or it has
       nothing of what was asked for
  130  interrupted; what was done stays, run the command again"""


class ReaderGoneError(Exception):
    """Who reads our output has enough of it, such as ``head``: no error, where click would end with status 1."""


@contextmanager
def _to_a_reader() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise ReaderGoneError from None


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the group's own options, ``--help`` among them."""
        with _to_a_reader():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with _to_a_reader():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of a night's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest a command for a misspelt one."""
        import difflib

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f": did you mean {close[0]!r}?" if close else f": expected one of {', '.join(COMMANDS)}"
            raise click.UsageError(f"no command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, epilog=EXIT_STATUS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ztfzarr")
def cli() -> None:
    """Raw ZTF exposures as one Zarr cube: exact, small, lazily read.

    STORE is a folder or a URL such as s3://bucket/ztf.
    """


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that is not UTF-8 gets "?" where it lacks a letter
    try:
        status: Any = cli.main(args, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (StoreError, RefusedError) as error:
        say(f"ztfzarr: {error}", err=True)
        sys.exit(3)
    except RecipeError as error:
        for line in f"ztfzarr: {error}".split("\n"):
            say(line, err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        say("ztfzarr: interrupted; run the command again to finish", err=True)
        sys.exit(130)
    except ReaderGoneError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python says so once more as it ends
        sys.exit(0)
    except Exception as error:
        if not _is_outside(error):
            raise
        say(f"ztfzarr: {_line(error)}", err=True)
        sys.exit(3)
    sys.exit(status if isinstance(status, int) else 0)


def _is_outside(error: Exception) -> bool:
    """Say whether an error is of the disk, the network or an object store, rather than of this program."""
    from obstore.exceptions import BaseError

    return isinstance(error, OSError | BaseError)


def _line(error: Exception) -> str:
    """Say in one line what went wrong; texts of object stores may quote what is not for logs."""
    from ztfzarr.store.access import reason

    if type(error).__module__.startswith("obstore"):
        return reason(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{PARTIAL.sub('', str(error.filename))}: " if error.filename else ""
        return f"{where}{error.strerror}"
    return str(error).splitlines()[0]
