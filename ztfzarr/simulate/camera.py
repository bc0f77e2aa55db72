"""The truth of a camera: everything that does not change from one exposure to the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ztfzarr.geometry import CCDS, FILTER_IDS, LED_FILTERS, QUADRANTS
from ztfzarr.simulate import maps
from ztfzarr.simulate.focal_plane import TERMS
from ztfzarr.simulate.quantities import Quantity, stream

# Lights: the LEDs of the dome flats, then the sky in each filter.
LEDS: Final = tuple(LED_FILTERS)
SOURCES: Final = tuple(f"led{led:02d}" for led in LEDS) + tuple(FILTER_IDS.values())

# The camera's mean gain (e-/DN): amplifiers of higher gain count fewer DN from the same light.
MEAN_GAIN: Final = 5.6

MIN_SIDE, MAX_SIDE = (
    32,
    9500,
)  # pixels; FITS's 10,000 dither numbers must hold a row from any offset below 500

Floats: TypeAlias = NDArray[np.float32]


@dataclasses.dataclass(frozen=True, eq=False)
class Camera:
    """A made camera. Arrays have their dimensions in the order given; stored orientation."""

    seed: int
    shape: tuple[int, int]
    ccd: Annotated[NDArray[np.int64], Quantity("ccd", "1", "CCD")]
    gain: Annotated[Floats, Quantity("ccd quadrant", "electron/DN", "true gain")]
    read_noise: Annotated[Floats, Quantity("ccd quadrant", "DN", "true read noise")]
    nominal_gain: Annotated[Floats, Quantity("ccd quadrant", "electron/DN", "gain in headers")]
    nominal_read_noise: Annotated[Floats, Quantity("ccd quadrant", "electron", "read noise in headers")]
    bias_level: Annotated[Floats, Quantity("ccd quadrant", "DN", "level of the amplifier")]
    bias_structure: Annotated[Floats, Quantity("ccd quadrant y x", "DN", "settled bias above its overscan")]
    drift: Annotated[Floats, Quantity("ccd quadrant power", "DN", "row drift: of (rows read / rows)^power")]
    settling_level: Annotated[
        Floats, Quantity("ccd quadrant", "DN", "excess level of the first bias, overscan too")
    ]
    settling_shape: Annotated[
        Floats, Quantity("ccd quadrant", "DN", "excess of the first bias, first-read corner")
    ]
    response: Annotated[Floats, Quantity("ccd quadrant y x", "1", "DN per DN of a mean amplifier, same light")]
    bad: Annotated[NDArray[np.uint8], Quantity("ccd quadrant x", "1", "columns: 0 good, 1 low, 2 dead, 3 hot")]
    dark: Annotated[Floats, Quantity("ccd quadrant x", "DN/s", "dark current of each column")]
    glow: Annotated[Floats, Quantity("ccd quadrant", "DN/s", "side glow at the first-read column")]
    full_well: Annotated[Floats, Quantity("ccd quadrant", "DN", "charge at which pixels saturate")]
    trail: Annotated[Floats, Quantity("ccd quadrant", "1", "last signal of a row deferred to overscan column 0")]
    trail_length: Annotated[Floats, Quantity("ccd quadrant", "pixel", "columns over which the trail falls by e")]
    led_level: Annotated[Floats, Quantity("led", "DN", "level of a flat of each LED")]
    throughput: Annotated[Floats, Quantity("source ccd", "1", "transmission of each light's colour")]
    illumination: Annotated[Floats, Quantity("source term", "1", "1 + sum of terms in focal-plane u, v")]

    def at(self, ccd: int, quadrant: int) -> tuple[int, int]:
        """Return the index of a quadrant in arrays that begin with (ccd, quadrant)."""
        if ccd not in self.ccd:
            raise ValueError(f"CCD {ccd} is not in this camera: expected one of {self.ccd.tolist()}")
        return int(np.flatnonzero(self.ccd == ccd)[0]), QUADRANTS.index(quadrant)


def camera(ccds: Sequence[int], shape: tuple[int, int], seed: int) -> Camera:
    """Make a camera; each CCD is the same whichever others are asked for.

    Parameters
    ----------
    ccds : sequence of int
        1-16, each once.
    shape : (int, int)
        Rows, columns of a quadrant.
    seed : int
        Of the camera's truth.

    Raises
    ------
    ValueError
        If a CCD does not exist or comes twice, the shape is out of range, or the seed is negative.
    """
    check(ccds, shape, seed)
    quadrants = [[_quadrant(seed, shape, ccd, q) for q in QUADRANTS] for ccd in ccds]
    table: dict[str, Any] = {
        name: np.array([[q[name] for q in row] for row in quadrants]) for name in quadrants[0][0]
    }
    return Camera(seed, shape, np.array(ccds), **table, **_lights(seed, ccds))


def check(ccds: Sequence[int], shape: tuple[int, int], seed: int) -> None:
    """Raise ValueError for CCDs, a shape or a seed that no camera has."""
    if not ccds or len(set(ccds)) < len(ccds) or not set(ccds) <= set(CCDS):
        raise ValueError(f"ccds {list(ccds)}: expected different numbers within 1-16")
    if len(shape) != 2 or not all(MIN_SIDE <= side <= MAX_SIDE for side in shape):
        raise ValueError(f"shape {tuple(shape)}: expected rows, columns within {MIN_SIDE}-{MAX_SIDE}")
    if seed < 0:
        raise ValueError(f"seed {seed}: expected 0 or more")


def _quadrant(seed: int, shape: tuple[int, int], ccd: int, quadrant: int) -> dict[str, Any]:
    rng = stream(seed, "maps", ccd, quadrant)
    amplifier = _amplifier(seed, ccd, quadrant)
    bad = maps.bad_columns(rng, shape[1])
    relative_gain = np.float32(MEAN_GAIN) / amplifier["gain"]
    return amplifier | {
        "bad": bad,
        "dark": maps.dark_current(rng, bad),
        "bias_structure": maps.bias_structure(rng, shape, quadrant),
        "response": maps.response(rng, shape, bad) * relative_gain,
    }


def _amplifier(seed: int, ccd: int, quadrant: int) -> dict[str, Any]:
    """Draw the numbers of one amplifier."""
    rng = stream(seed, "amplifier", ccd, quadrant)
    # The sky's variance in a real quadrant is 15-18 % above what the header's gain predicts.
    gain, read_noise = rng.uniform(5.8, 6.3), rng.uniform(1.5, 1.7)
    true_gain = gain * rng.uniform(0.85, 0.95)
    # CCD 6: +130 DN in the first overscan column and +10 in column 5 of a flat of 40 kDN.
    strength, length = rng.uniform(0.9, 1.1), rng.uniform(1.8, 3.5)
    values = {
        "gain": true_gain,
        "read_noise": read_noise,
        "nominal_gain": round(gain, 2),
        "nominal_read_noise": round(read_noise * true_gain * rng.uniform(1.03, 1.12), 1),
        "bias_level": rng.uniform(30, 250),
        "drift": rng.choice([-1, 1]) * rng.uniform((0.6, 0.1, -0.4), (1.2, 0.4, -0.1)),
        "settling_level": rng.uniform(2, 5) * rng.choice([-1, 1]),
        "settling_shape": rng.uniform(5, 9),
        "glow": rng.uniform(0.03, 0.1),
        "full_well": rng.uniform(58e3, 62e3),
        "trail": 130 / 40e3 * strength if ccd == 6 else 3e-4 * strength,
        "trail_length": 5 / np.log(13) if ccd == 6 else length,
    }
    return {name: np.asarray(value, np.float32) for name, value in values.items()}


def _lights(seed: int, ccds: Sequence[int]) -> dict[str, Any]:
    """Draw the LEDs and the sky: levels, colours and how they light the focal plane."""
    rng = stream(seed, "lights")
    level = rng.uniform(31e3, 41e3, len(LEDS))
    throughput = 1 + rng.normal(0, 0.03, (len(LEDS), len(CCDS)))
    throughput /= np.median(throughput, axis=1, keepdims=True)
    mean, spread = (0, 0, -0.02, 0, -0.03), (0.02, 0.02, 0.01, 0.01, 0.01)
    illumination = rng.normal(mean, spread, (len(LEDS), len(TERMS)))
    sky = _mean_by_filter(illumination) + rng.normal(0, 0.005, (len(FILTER_IDS), len(TERMS)))
    # Through a filter's LEDs a CCD is as sensitive as under the sky: dome flats can level CCDs.
    colours = np.concatenate([throughput, _mean_by_filter(throughput)])
    return {
        "led_level": level.astype(np.float32),
        "throughput": colours[:, [CCDS.index(ccd) for ccd in ccds]].astype(np.float32),
        "illumination": np.concatenate([illumination, sky]).astype(np.float32),
    }


def _mean_by_filter(values: NDArray[np.float64]) -> NDArray[np.float64]:
    filters = np.array(list(LED_FILTERS.values()))
    return np.stack([values[filters == name].mean(axis=0) for name in FILTER_IDS.values()])
