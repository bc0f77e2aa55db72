"""A forward model of raw ZTF nights: files as the camera writes them, with the truth beside.

:func:`simulate_night` writes a night. For tests of reductions, :func:`camera`, :func:`schedule` and
:func:`raw_ccd` give the same pixels without files, :func:`truth` what a reduction should find in them.
"""

from ztfzarr.simulate.camera import Camera, camera
from ztfzarr.simulate.conditions import Conditions, conditions
from ztfzarr.simulate.detector import RawCcd, light, raw_ccd
from ztfzarr.simulate.focal_plane import coordinates, illumination
from ztfzarr.simulate.night import simulate_night
from ztfzarr.simulate.scene import read_sky, stars
from ztfzarr.simulate.schedule import Exposure, schedule
from ztfzarr.simulate.starfield import Catalogue, catalogue, dither_stars, illumination_error
from ztfzarr.simulate.truth import truth

__all__ = [
    "Camera",
    "Catalogue",
    "Conditions",
    "Exposure",
    "RawCcd",
    "camera",
    "catalogue",
    "conditions",
    "coordinates",
    "dither_stars",
    "illumination",
    "illumination_error",
    "light",
    "raw_ccd",
    "read_sky",
    "schedule",
    "simulate_night",
    "stars",
    "truth",
]
