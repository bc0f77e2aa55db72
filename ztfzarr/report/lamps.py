"""The LEDs of a night: level, drift, and colour, which is what a LED lights otherwise than its filter's mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

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

    A CCD's colour is (led_level / led_reference) of the LED over the mean of that of its filter's LEDs, minus 1.
    """
    level = flat.table("led_level")[row].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = level / flat.table("led_reference")[row][:, np.newaxis]
    found = []
    for i, led in enumerate(LEDS):
        if not np.isfinite(level[i]).any():
            continue
        same = relative[[j for j, other in enumerate(LEDS) if LED_FILTERS[other] == LED_FILTERS[led]]]
        known = np.isfinite(same)
        mean = np.where(known, same, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            per_cent = 100 * (relative[i] / mean - 1)
        frames = flat.table("led_frames")[row, i]
        drift = flat.table("led_drift")[row, i]
        found.append(
            Lamp(
                led,
                LED_FILTERS[led],
                _span(frames[frames > 0].astype(np.float64), ".0f"),
                _span(level[i], ",.0f"),
                f"{100 * float(np.nanmax(drift)):.2f}" if np.isfinite(drift).any() else "",
                [_colour(v) for v in per_cent.tolist()],
            )
        )
    return found


def _span(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], form: str) -> str:
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
