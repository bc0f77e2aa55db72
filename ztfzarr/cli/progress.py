"""Progress: a bar with rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from ztfzarr.cli.say import say

LINE_SECONDS: Final = 10.0


class Progress(Protocol):
    """Whom to tell of steps and of work done."""

    def step(self, name: str, total: int) -> None:
        """Begin a step of ``total`` items."""

    def advance(self, megapixels: float = 0.0) -> None:
        """Count one item."""


class Silent:
    """No progress."""

    def step(self, name: str, total: int) -> None:
        """Ignore."""

    def advance(self, megapixels: float = 0.0) -> None:
        """Ignore."""


class Lines(Silent):
    """Plain lines on standard error, for logs."""

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self.step("", 0)

    def step(self, name: str, total: int) -> None:
        """Begin a step."""
        self.name, self.total, self.count, self.megapixels = name, total, 0, 0.0
        self.started = self.last = time.monotonic()

    def advance(self, megapixels: float = 0.0) -> None:
        """Count one item; print when some time has passed."""
        self.count += 1
        self.megapixels += megapixels
        now = time.monotonic()
        if now - self.last > LINE_SECONDS:
            self.last = now
            seconds = now - self.started
            left = seconds / self.count * (self.total - self.count)
            rate = f", {self.megapixels / seconds:.0f} Mpix/s" if self.megapixels else ""
            say(f"{self.name}: {self.count}/{self.total} {self.noun}{rate}, {left:.0f} s left", err=True)


@contextmanager
def progress(quiet: bool, noun: str = "files") -> Iterator[Progress]:
    """Show progress on standard error, unless ``quiet``; ``noun`` is what is counted."""
    if quiet:
        yield Silent()
    elif not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":  # which cannot draw over what it shows
        yield Lines(noun)
    else:
        with _bar(noun) as bar:
            yield bar


@contextmanager
def _bar(noun: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = ("[bold]{task.description:>9}", "{task.fields[rate]}")
    console = Console(stderr=True)
    with RichProgress(
        TextColumn(columns[0]), BarColumn(), MofNCompleteColumn(), TextColumn(columns[1]), TimeRemainingColumn(),
        console=console,
    ) as rich:  # fmt: skip

        class Bar(Lines):
            def step(self, name: str, total: int) -> None:
                super().step(name, total)
                self.task = rich.add_task(name, total=total, rate="") if name else None

            def advance(self, megapixels: float = 0.0) -> None:
                self.count += 1
                self.megapixels += megapixels
                seconds = max(time.monotonic() - self.started, 1e-6)
                unit = f"{self.megapixels / seconds:.0f} Mpix/s" if self.megapixels else ""
                if self.task is not None:
                    rich.update(self.task, advance=1, rate=unit or f"{self.count / seconds:.0f} {self.noun}/s")

        yield Bar(noun)
