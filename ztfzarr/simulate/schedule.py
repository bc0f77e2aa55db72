"""The exposures of a night: biases before sunset, flats LED by LED around it, then the sky."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final

import numpy as np

from ztfzarr.geometry import FILTER_IDS, LED_FILTERS, filefracday_time, night_of
from ztfzarr.simulate import ephemeris
from ztfzarr.simulate.quantities import stream
from ztfzarr.sky import from_tangent_plane

SECOND: Final = np.timedelta64(1_000_000, "us")
BIAS_BEFORE_SUNSET: Final = 55 * 60 * SECOND
FLATS_AFTER_BIASES: Final = 5 * 60 * SECOND
FLATS_BEFORE_SUNSET: Final = 20 * 60 * SECOND
SCIENCE_AFTER_SUNSET: Final = 75 * 60 * SECOND
SCIENCE_AFTER_FLATS: Final = 15 * 60 * SECOND

BIAS_SPACING: Final = 30.0  # s
READ_TIME: Final = 8.2  # s
LAMP_TIME: Final = 9.0  # s between flats
SLEW_TIME: Final = 3.0

# The real header's shutter opens 1.668 s after the time in its file name.
SHUTTER_DELAY: Final = 1.668

# Fields in the row of the grid that holds the real field 655 (RA 55.0608, Dec 33.35); spacing approximate.
FIRST_FIELD, FIELDS_IN_ROW = 643, 44
REAL_FIELD, REAL_RA, FIELD_DEC = 655, 55.0608, 33.35
MOST: Final = 5000  # exposures of a kind: more than a night holds, planned in a second
MOST_FIELDS: Final = 5
CALIBRATION_DEC: Final = 5.0
CALIBRATION_HOUR_ANGLE: Final = -35.0  # degrees; the dome screen
GOLDEN: Final = 0.6180339887


@dataclasses.dataclass(frozen=True)
class Exposure:
    """One exposure of the whole camera."""

    number: int  # filefracday, YYYYMMDDFFFFFF
    shutter_open: np.datetime64  # UTC, milliseconds
    kind: str  # b, f, o
    filter: str  # bi, zg, zr, zi
    led: int  # 0 without
    field: int  # 0 for calibrations
    exptime: float  # s
    ra: float  # degrees
    dec: float
    position: int  # in its run of one kind, from 0
    frame: int = 0  # in the night, from 1
    dither: int = 0  # of a starflat, from 1; 0 of other exposures


@dataclasses.dataclass(frozen=True)
class _Plan:
    """An exposure before it has a time."""

    kind: str
    filter: str
    position: int
    exptime: float = 0.0
    led: int = 0
    field: int = 0
    dither: int = 0


def schedule(
    night: int, *, bias: int, flats: int, science: int, seed: int, starflat: int = 0, starflat_filter: str = "zr"
) -> list[Exposure]:
    """Plan a night.

    Parameters
    ----------
    night : int
        YYYYMMDD.
    bias, flats, science : int
        Bias frames; flats of each LED; exposures of the sky, spread over the filters.
    seed : int
        Of the jitter of times.
    starflat : int
        Dithered exposures of one field, after the others.
    starflat_filter : str
        Their filter: zg, zr or zi.

    Returns
    -------
    list of Exposure
        In order of time, each within the night.

    Raises
    ------
    ValueError
        If the night is no date, a count is negative, there is no such filter, or so many exposures do not fit
        into the night.
    """
    _check(night, bias=bias, flats=flats, science=science, starflat=starflat)
    if starflat_filter not in FILTER_IDS.values():
        raise ValueError(f"filter {starflat_filter!r}: expected one of {', '.join(FILTER_IDS.values())}")
    rng, sunset = stream(seed, "schedule", night), ephemeris.sunset(night)
    biases, bias_end = _timed(_bias_plans(bias), sunset - BIAS_BEFORE_SUNSET, rng)
    flats_start = max(bias_end + FLATS_AFTER_BIASES, sunset - FLATS_BEFORE_SUNSET)
    lamps, flats_end = _timed(_flat_plans(flats, seed), flats_start, rng)
    dark = max(flats_end + SCIENCE_AFTER_FLATS, sunset + SCIENCE_AFTER_SUNSET)
    sky, sky_end = _timed(_science_plans(science, dark), dark, rng)
    dithers, _ = _timed(_starflat_plans(starflat, starflat_filter, sky_end), sky_end, rng)
    exposures = [*biases, *lamps, *sky, *dithers]
    if any(night_of(np.array([e.shutter_open for e in exposures])) != night):
        raise ValueError(f"{len(exposures)} exposures last beyond the night {night}: expected fewer")
    return [dataclasses.replace(e, frame=i + 1) for i, e in enumerate(exposures)]


def _check(night: int, **counts: int) -> None:
    text = f"{night:08d}"
    try:
        np.datetime64(f"{text[:4]}-{text[4:6]}-{text[6:]}", "D")
    except ValueError:
        raise ValueError(f"night {night} is no date: expected YYYYMMDD") from None
    for name, count in counts.items():
        if count < 0:
            raise ValueError(f"{name} = {count} exposures: expected 0 or more")
        if count > MOST:
            raise ValueError(f"{name} = {count} exposures do not fit into a night: expected {MOST} at most")


def _bias_plans(count: int) -> Iterator[_Plan]:
    return (_Plan("b", "bi", i) for i in range(count))


def _flat_plans(count: int, seed: int) -> Iterator[_Plan]:
    exptimes = stream(seed, "lamps").integers(5, 16, len(LED_FILTERS)).astype(float)
    for n, ((led, name), exptime) in enumerate(zip(LED_FILTERS.items(), exptimes, strict=True)):
        yield from (_Plan("f", name, n * count + i, float(exptime), led=led) for i in range(count))


def _science_plans(count: int, start: np.datetime64) -> Iterator[_Plan]:
    """Plan the filters one after the other, each over the same few fields near the meridian."""
    filters = list(FILTER_IDS.values())
    n_fields = min(-(-count // len(filters)), MOST_FIELDS)
    order = sorted(i % len(filters) for i in range(count))
    for i, which in enumerate(order):
        visit = (i - order.index(which)) % n_fields
        yield _Plan("o", filters[which], i, 30.0, field=_field_near_meridian(start, visit))


def _starflat_plans(count: int, filter_name: str, start: np.datetime64) -> Iterator[_Plan]:
    """Plan dithers of the field that follows those of the science exposures."""
    field = _field_near_meridian(start, MOST_FIELDS)
    yield from (_Plan("o", filter_name, i, 30.0, field=field, dither=i + 1) for i in range(count))


def _field_near_meridian(time: np.datetime64, after: int) -> int:
    """Return the field on the meridian at a time, or one so many east of it."""
    on_meridian = round((ephemeris.sidereal_time(time) - REAL_RA) / 360 * FIELDS_IN_ROW)
    return FIRST_FIELD + (REAL_FIELD - FIRST_FIELD + on_meridian + after) % FIELDS_IN_ROW


def _timed(
    plans: Iterator[_Plan], start: np.datetime64, rng: np.random.Generator
) -> tuple[list[Exposure], np.datetime64]:
    """Give plans their times one after the other; also return the end of the last."""
    exposures, time = [], start
    for plan in plans:
        exposures.append(_at(plan, time, rng))
        time = time + np.timedelta64(round((_duration(plan) + rng.uniform(0, 2)) * 1e6), "us")
    return exposures, time


def _duration(plan: _Plan) -> float:
    overhead = {"b": BIAS_SPACING, "f": READ_TIME + LAMP_TIME, "o": READ_TIME + SLEW_TIME}
    return plan.exptime + overhead[plan.kind]


def _at(plan: _Plan, time: np.datetime64, rng: np.random.Generator) -> Exposure:
    number = filefracday(time)
    delay = np.timedelta64(round((SHUTTER_DELAY + rng.uniform(-0.02, 0.02)) * 1e6), "us")
    shutter_open = (filefracday_time(number) + delay).astype("datetime64[ms]")
    ra, dec = dithered(plan.field, plan.dither) if plan.field else _screen_position(time)
    return Exposure(number, shutter_open, ra=ra, dec=dec, **dataclasses.asdict(plan))


def filefracday(time: np.datetime64) -> int:
    """Return the number YYYYMMDDFFFFFF of a UTC time: date and fraction of the day x 10^6."""
    day = time.astype("datetime64[D]")
    fraction = int((time - day) / np.timedelta64(86_400, "us"))  # 10^-6 of a day is 86,400 microseconds
    return int(str(day).replace("-", "")) * 1_000_000 + fraction


def field_position(field: int) -> tuple[float, float]:
    """Return right ascension and declination of the centre of a field, degrees."""
    ra = REAL_RA + (field - REAL_FIELD) * 360 / FIELDS_IN_ROW
    return round(ra % 360, 4), FIELD_DEC


def dithered(field: int, dither: int) -> tuple[float, float]:
    """Return where the telescope is sent for a dither of a field, degrees; dithers 0 and 1 are its centre.

    Notes
    -----
    Steps of 0.1 to 0.5 degrees, and every fifth of 1.7 to 1.85, which is a CCD and its gap: golden angles, so
    that any number of dithers goes all round.
    """
    ra, dec = field_position(field)
    step = max(dither - 1, 0)
    if step == 0:
        return ra, dec
    part = step * GOLDEN % 1
    radius = 1.7 + 0.15 * part if step % 5 == 4 else 0.1 + 0.4 * part
    angle = 2 * np.pi * GOLDEN * step
    east, north = from_tangent_plane(radius * np.cos(angle), radius * np.sin(angle), ra, dec)
    return round(float(east), 4), round(float(north), 4)


def _screen_position(time: np.datetime64) -> tuple[float, float]:
    ra = ephemeris.sidereal_time(time) - CALIBRATION_HOUR_ANGLE
    return round(ra % 360, 4), CALIBRATION_DEC
