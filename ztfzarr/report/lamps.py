"""The LEDs of a night: level, drift, and colour, which is what a LED lights otherwise than its filter's mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.geometry import LED_FILTERS
from ztfzarr.report.source import Product
from ztfzarr.store.products import LEDS

STEPS: Final = (0.25, 0.5, 1.0, 2.0)  # per cent, at which the colour of a cell changes


@dataclass(frozen=True)
class Colour:
    """A number of a table with the class of its colour, -4 to 4; None where there is no number."""

    text: str
    step: int | None


@dataclass(frozen=True)
class Lamp:
    """A LED: its filter, frames of a CCD, level and range of its frames, and colours over the CCDs."""

    led: int
    filter: str
    frames: str
    level: str
    drift: str
    colours: list[Colour]


def lamps(flat: Product, row: int) -> list[Lamp]:
    """List the LEDs that went into the flats of a row.

    A CCD's colour is its level over the LED's reference, over the mean of that of its filter's LEDs, minus 1.
    """
    level = flat.table("led_level")[row].astype(np.float64)
    relative = level / reference(flat, row)[:, np.newaxis]
    return [_lamp(flat, row, i, level, relative) for i in range(len(LEDS)) if np.isfinite(level[i]).any()]


def reference(flat: Product, row: int) -> NDArray[np.float64]:
    """Return what levels of LEDs are compared with: the frozen reference, before that the CCDs' median."""
    frozen = flat.table("led_reference")[row].astype(np.float64)
    level = flat.table("led_level")[row].astype(np.float64)
    medians = [np.median(v[np.isfinite(v)]) if np.isfinite(v).any() else np.nan for v in level]
    return np.where(np.isfinite(frozen), frozen, medians)


def waiting(flat: Product, row: int) -> str:
    """Say in a line if the CCDs have no levels yet; science is not made then."""
    made = (flat.table("present")[row] == 1).any(axis=0)
    if not made.any() or np.isfinite(flat.table("level")[row][:, made]).any():
        return ""
    return "The CCDs have no levels against each other yet: flats of some that the night has are missing."


def _lamp(flat: Product, row: int, i: int, level: NDArray[np.float64], relative: NDArray[np.float64]) -> Lamp:
    led, frames, drift = LEDS[i], flat.table("led_frames")[row, i], flat.table("led_drift")[row, i]
    same = relative[[LED_FILTERS[other] == LED_FILTERS[led] for other in LEDS]]
    known = np.isfinite(same)
    mean = np.where(known, same, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    per_cent = 100 * (relative[i] / np.where(mean > 0, mean, np.nan) - 1)
    return Lamp(
        led,
        LED_FILTERS[led],
        _span(frames[frames > 0].astype(np.float64), ".0f"),
        _span(level[i], ",.0f"),
        f"{100 * float(np.nanmax(drift)):.2f}" if np.isfinite(drift).any() else "",
        [_colour(v) for v in per_cent.tolist()],
    )


def _span(values: NDArray[np.float64], form: str) -> str:
    known = values[np.isfinite(values)]
    if not known.size:
        return ""
    low, high = format(known.min(), form), format(known.max(), form)
    return low if low == high else f"{low}–{high}"


def _colour(value: float) -> Colour:
    if not math.isfinite(value):
        return Colour("", None)
    step = sum(abs(value) >= edge for edge in STEPS)
    return Colour(f"{value:+.2f}".replace("-", "−"), step if value > 0 else -step)
