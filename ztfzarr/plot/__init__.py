"""Pictures: quadrants, CCDs and the focal plane as they lie on the sky; matplotlib is the extra ``plot``."""

from ztfzarr.plot.image import camera_image, difference, image
from ztfzarr.plot.mask import mask
from ztfzarr.plot.mosaic import camera_mosaic, mosaic
from ztfzarr.plot.rebin import block_flags, block_mean, block_median

__all__ = [
    "block_flags",
    "block_mean",
    "block_median",
    "camera_image",
    "camera_mosaic",
    "difference",
    "image",
    "mask",
    "mosaic",
]
