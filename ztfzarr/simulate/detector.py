"""One CCD exposed and read: the effects of :mod:`ztfzarr.simulate.readout` put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ztfzarr import tables
from ztfzarr.geometry import (
    CCDS,
    FULL_OVERSCAN,
    LED_FILTERS,
    POCKET_START,
    QUADRANTS,
    linearity_epoch,
)
from ztfzarr.kernels.pocket import Pocket
from ztfzarr.simulate import readout, scene, starfield
from ztfzarr.simulate.camera import LEDS, SOURCES, Camera
from ztfzarr.simulate.conditions import Conditions, conditions, with_amplifier_steps
from ztfzarr.simulate.focal_plane import coordinates, illumination
from ztfzarr.simulate.quantities import stream
from ztfzarr.simulate.schedule import READ_TIME, Exposure

Image: TypeAlias = NDArray[np.float32]


class RawCcd(NamedTuple):
    """What a raw file holds: DN, stored orientation."""

    images: Image  # (quadrant, y, x)
    overscans: Image  # (quadrant, y, 30)


@dataclass(frozen=True)
class _Channel:
    """One quadrant of one exposure."""

    camera: Camera
    exposure: Exposure
    now: Conditions
    ccd: int
    quadrant: int
    pocket: bool = False
    colour_term: float = 0.0

    @property
    def at(self) -> tuple[int, int]:
        return self.camera.at(self.ccd, self.quadrant)


def raw_ccd(
    camera: Camera,
    exposure: Exposure,
    ccd: int,
    *,
    sky: Image | None = None,
    pocket: bool = False,
    colour_term: float = 0.0,
    amplifier_step: float = 0.0,
) -> RawCcd:
    """Expose and read one CCD.

    Parameters
    ----------
    camera : Camera
        With this CCD.
    exposure : Exposure
        Of a bias, a flat or the sky.
    ccd : int
        1-16.
    sky : (y, x) float32, DN, optional
        An image of the sky to expose instead of made stars; any size.
    pocket : bool
        Read through the pockets of the tables, from their first day on; else only the last pixels of each row
        trail, by the camera's ``trail``, into the overscan.
    colour_term : float
        Of dithers of a starflat, see :func:`~ztfzarr.simulate.starfield.dither_stars`.
    amplifier_step : float
        DN: standard deviation of the steps by which exposures of the sky stand above their overscans.

    Returns
    -------
    RawCcd
        Of numbers that depend on the camera's seed, the exposure and the CCD alone.
    """
    rng = stream(camera.seed, "noise", exposure.number, ccd)
    now = conditions(camera, exposure, ccd)
    now = with_amplifier_steps(now, camera, exposure, ccd, amplifier_step)
    pairs = []
    for quadrant in QUADRANTS:
        channel = _Channel(camera, exposure, now, ccd, quadrant, pocket, colour_term)
        pairs.append(_read(channel, _charge(channel, _light(channel, sky), rng), rng))
    images, overscans = zip(*pairs, strict=True)
    return RawCcd(np.stack(images), np.stack(overscans))


def light(camera: Camera, exposure: Exposure, ccd: int, quadrant: int, *, sky: Image | None = None) -> Image:
    """Return what falls on a quadrant, (y, x) float32, in DN of a mean amplifier: lamp, or sky and stars.

    Parameters
    ----------
    camera, exposure, ccd, sky
        See :func:`raw_ccd`.
    quadrant : int
        1-4.
    """
    return _light(_Channel(camera, exposure, conditions(camera, exposure, ccd), ccd, quadrant), sky)


def _light(channel: _Channel, sky: Image | None) -> Image:
    camera, exposure = channel.camera, channel.exposure
    if exposure.kind == "b":
        return np.zeros(camera.shape, np.float32)
    if exposure.dither:
        return _starfield(channel)
    source = SOURCES.index(f"led{exposure.led:02d}" if exposure.kind == "f" else exposure.filter)
    plane = coordinates(channel.ccd, channel.quadrant, camera.shape)
    lit = illumination(camera.illumination[source], *plane)
    lit *= camera.throughput[source, channel.at[0]]
    if exposure.kind == "f":
        lit *= np.float32(camera.led_level[LEDS.index(exposure.led)] * channel.now.lamp)
    elif sky is None:
        lit *= _made_sky(channel)
    else:
        lit *= _real_sky(channel, sky)
    return lit


def _made_sky(channel: _Channel) -> Image:
    camera, now, field = channel.camera, channel.now, channel.exposure.field
    u, v = coordinates(channel.ccd, channel.quadrant, camera.shape)
    level = np.float32(now.sky) * (1 + np.float32(now.gradient_u) * u)
    level = level + np.float32(now.sky * now.gradient_v) * v[:, np.newaxis]
    star = scene.stars(camera.seed, field, channel.ccd, channel.quadrant, camera.shape)
    return scene.made_sky(star, channel.exposure.filter, level, (now.shift_x, now.shift_y))


def _starfield(channel: _Channel) -> Image:
    """Light a quadrant as the mean of the filter's LEDs does, but for the starflat's error of illumination."""
    camera, exposure, now, where = channel.camera, channel.exposure, channel.now, (channel.ccd, channel.quadrant)
    of_filter = [SOURCES.index(f"led{led:02d}") for led in LEDS if LED_FILTERS[led] == exposure.filter]
    lit = illumination(camera.illumination[of_filter].mean(axis=0), *coordinates(*where, camera.shape))
    lit *= camera.throughput[SOURCES.index(exposure.filter), channel.at[0]]
    y, x = ((np.arange(n) + 0.5) / n for n in camera.shape)
    error = starfield.illumination_error(camera.seed, exposure.filter, *where, x, y[:, np.newaxis])
    star = starfield.dither_stars(
        camera.seed, exposure, now, *where, camera.shape, colour_term=channel.colour_term
    )
    level = np.full(camera.shape, now.sky, np.float32)
    seen: Image = lit * scene.with_stars(level, star.x, star.y, star.flux) * error.astype(np.float32)
    return seen


def _real_sky(channel: _Channel, image: Image) -> Image:
    """Cut a window for the quadrant, the same for each exposure of a field but for the pointing error."""
    seed, field, now = channel.camera.seed, channel.exposure.field, channel.now
    row, column = scene.sky_window(seed, field, channel.ccd, channel.quadrant, (image.shape[0], image.shape[1]))
    corner = (row - round(now.shift_y), column - round(now.shift_x))
    return np.maximum(scene.cut_sky(image, corner, channel.camera.shape), 0)


def _charge(channel: _Channel, incoming: Image, rng: np.random.Generator) -> Image:
    """Collect light, dark current, glow and cosmic rays, up to the full well: true DN."""
    camera, exposure, at = channel.camera, channel.exposure, channel.at
    gain = float(camera.gain[at])
    signal = incoming * camera.response[at]
    signal += camera.dark[at] * np.float32(exposure.exptime + READ_TIME)
    signal += readout.side_glow(camera.glow[at], exposure.exptime, camera.shape[1], channel.quadrant)
    charge = readout.shot_noise(signal, gain, rng)
    hits = int(channel.now.cosmic_rays[at[1]])
    np.add.at(charge.reshape(-1), *readout.cosmic_rays(hits, camera.shape, gain, rng))
    held: Image = np.minimum(charge, camera.full_well[at])
    return held


def _read(channel: _Channel, charge: Image, rng: np.random.Generator) -> tuple[Image, Image]:
    """Read a quadrant and its overscan: DN as the camera writes them."""
    camera, at, quadrant = channel.camera, channel.at, channel.quadrant
    level = _row_level(channel)
    held, trail = _deferred(channel, charge)
    image = readout.measured(held, *_linearity(channel))
    image += camera.bias_structure[at]
    image += level + channel.now.amplifier_step[at[1]]
    if channel.exposure.kind == "b":
        unsettled = channel.now.unsettled_shape * camera.settling_shape[at]
        image += readout.settling_shape(unsettled, camera.shape, quadrant)
    noise = float(camera.read_noise[at])
    return readout.digitise(image, noise, rng), readout.digitise(level + trail, noise, rng)


def _deferred(channel: _Channel, charge: Image) -> tuple[Image, Image]:
    """Return the charge that leaves the serial register, of the image and of the overscan."""
    camera, at, quadrant = channel.camera, channel.at, channel.quadrant
    if channel.pocket and channel.exposure.shutter_open >= POCKET_START:
        return readout.pocket_effect(charge, _pocket(channel), FULL_OVERSCAN, quadrant)
    length = camera.trail_length[at]
    return charge, readout.deferred_charge(charge, camera.trail[at], length, FULL_OVERSCAN, quadrant)


def _pocket(channel: _Channel) -> Pocket:
    of_name, at = tables.pocket(), (CCDS.index(channel.ccd), channel.quadrant - 1)
    return Pocket(*(float(of_name[name][at]) for name in Pocket._fields))


def _row_level(channel: _Channel) -> Image:
    """Return the level of each row, which a quadrant and its overscan share, (y, 1), DN."""
    camera, now, at = channel.camera, channel.now, channel.at
    drift = readout.row_drift(camera.drift[at] * now.drift_scale[at[1]], camera.shape[0], channel.quadrant)
    drift += np.float32(camera.bias_level[at] + now.unsettled_level * camera.settling_level[at])
    return drift


def _linearity(channel: _Channel) -> tuple[float, float]:
    a, b = tables.linearity(linearity_epoch(channel.exposure.shutter_open))
    at = CCDS.index(channel.ccd), channel.quadrant - 1
    return float(a[at]), float(b[at])
