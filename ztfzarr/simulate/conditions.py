"""What changes from one exposure to the next."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray

from ztfzarr.geometry import QUADRANTS
from ztfzarr.simulate.camera import Camera
from ztfzarr.simulate.quantities import Quantity, stream
from ztfzarr.simulate.schedule import READ_TIME, Exposure

SKY: Final = {"zg": (100, 180), "zr": (170, 270), "zi": (280, 400)}  # DN in 30 s

# Frames over which level and shape of a bias run settle by a factor e.
SETTLING_LEVEL, SETTLING_SHAPE = 1.5, 2.5

# Hits per pixel and second: twenty times those at sea level, so that small frames have some.
COSMIC_RAYS: Final = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Conditions:
    """The circumstances of one exposure of one CCD."""

    sky: Annotated[
        float, Quantity("", "DN", "level of the made sky at the centre; unused with an image of the sky")
    ]
    gradient_u: Annotated[float, Quantity("", "1", "relative slope of the sky along focal-plane u")]
    gradient_v: Annotated[float, Quantity("", "1", "relative slope of the sky along focal-plane v")]
    lamp: Annotated[float, Quantity("", "1", "LED relative to its mean level")]
    shift_x: Annotated[float, Quantity("", "pixel", "pointing error: stars lie at x + shift_x")]
    shift_y: Annotated[float, Quantity("", "pixel", "pointing error: stars lie at y + shift_y")]
    unsettled_level: Annotated[float, Quantity("", "1", "share of the camera's settling_level in this frame")]
    unsettled_shape: Annotated[float, Quantity("", "1", "share of the camera's settling_shape in this frame")]
    drift_scale: Annotated[NDArray[np.float32], Quantity("quadrant", "1", "row drift relative to the camera's")]
    cosmic_rays: Annotated[NDArray[np.int32], Quantity("quadrant", "1", "number of cosmic-ray hits")]
    transparency: Annotated[float, Quantity("", "1", "starlight relative to the mean, of dithers of a starflat")]
    rotation: Annotated[float, Quantity("", "degree", "of the camera on the sky, of dithers of a starflat")]
    amplifier_step: Annotated[
        NDArray[np.float32], Quantity("quadrant", "DN", "image above its overscan, of exposures of the sky")
    ]


def conditions(camera: Camera, exposure: Exposure, ccd: int) -> Conditions:
    """Draw the circumstances of an exposure; those of the sky and the lamp are the same for every CCD.

    Parameters
    ----------
    camera : Camera
        Its seed and shape.
    exposure : Exposure
        When and what.
    ccd : int
        1-16.
    """
    rng = stream(camera.seed, "exposure", exposure.number)
    electronics = stream(camera.seed, "electronics", exposure.number, ccd)
    hits = COSMIC_RAYS * camera.shape[0] * camera.shape[1] * (exposure.exptime + READ_TIME)
    run = exposure.position if exposure.kind == "b" else np.inf
    return Conditions(
        sky=rng.uniform(*SKY[exposure.filter]) if exposure.kind == "o" else 0.0,
        gradient_u=rng.normal(0, 0.02),
        gradient_v=rng.normal(0, 0.02),
        lamp=rng.normal(1, 0.01) if exposure.kind == "f" else 1.0,
        shift_x=rng.normal(0, 3),
        shift_y=rng.normal(0, 3),
        unsettled_level=float(np.exp(-run / SETTLING_LEVEL)),
        unsettled_shape=float(np.exp(-run / SETTLING_SHAPE)),
        drift_scale=electronics.normal(1, 0.2, len(QUADRANTS)).astype(np.float32),
        cosmic_rays=electronics.poisson(hits, len(QUADRANTS)).astype(np.int32),
        transparency=rng.uniform(0.95, 1.05) if exposure.dither else 1.0,
        rotation=rng.normal(0, 0.01) if exposure.dither else 0.0,
        amplifier_step=np.zeros(len(QUADRANTS), np.float32),
    )


def with_amplifier_steps(
    now: Conditions, camera: Camera, exposure: Exposure, ccd: int, sigma: float
) -> Conditions:
    """Let the amplifiers step between image and overscan, where the sky is exposed.

    Parameters
    ----------
    now : Conditions
        Of the exposure and CCD, from :func:`conditions`.
    camera, exposure, ccd
        As of :func:`conditions`.
    sigma : float
        DN: standard deviation of the steps, one a quadrant and exposure; 0: none.
    """
    if sigma == 0 or exposure.kind != "o":
        return now
    steps = stream(camera.seed, "amplifier step", exposure.number, ccd).normal(0, sigma, len(QUADRANTS))
    return dataclasses.replace(now, amplifier_step=steps.astype(np.float32))
