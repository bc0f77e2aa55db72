"""Numbers that say whether frames and masters are what they should be: small, one a quadrant, with a flag."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.kernels.blocks import block_medians
from ztfzarr.masters.flat_quality import flat_difference, flat_frames, flat_quality
from ztfzarr.masters.frames import Frames, calibrated_frames, matching_master
from ztfzarr.masters.numbers import centre, flags, of_images, rejected, span
from ztfzarr.masters.selection import SKIP, number_in_run, settled
from ztfzarr.steps.overscan import (
    CLIP,
    COLUMNS,
    DEGREE,
    HIGHEST,
    STEP,
    overscan_flag,
    overscan_level,
    overscan_profile,
)
from ztfzarr.steps.units import require_units

__all__ = [
    "bias_quality",
    "flat_difference",
    "flat_frames",
    "flat_quality",
    "overscan_quality",
    "rejected",
    "science_quality",
    "settling",
]

BAND: Final = 50  # rows or columns of a profile's step
GRID: Final = 8  # blocks a side, in which the shape of a frame is looked at


def overscan_quality(
    overscan: xr.DataArray,
    *,
    columns: tuple[int, int] = COLUMNS,
    columns_of_ccd: Mapping[int, tuple[int, int]] | None = None,
    degree: int = DEGREE,
    clip: float = CLIP,
    highest: float = HIGHEST,
    step: float = STEP,
) -> xr.Dataset:
    """Judge overscans.

    Parameters
    ----------
    overscan : (..., ccd, quadrant, y, x_overscan) float32, DN
        All its rows and columns, as stored.
    columns, columns_of_ccd, degree, clip, highest, step
        See ``overscan_profile``, ``overscan_level`` and ``overscan_flag``.

    Returns
    -------
    Dataset
        Each (..., ccd, quadrant): ``mean`` of the level, ``rms`` of the rows in use about it, ``step``, the
        largest jump (DN, float32); ``rows``, the share of rows in use (1); ``flag`` (uint8): failed, saturated,
        step. Lazy if ``overscan`` is.
    """
    whole = overscan.chunk(y=-1, x_overscan=-1) if overscan.chunks else overscan
    fit = overscan_level(
        overscan_profile(whole, columns=columns, columns_of_ccd=columns_of_ccd), degree=degree, clip=clip
    )
    rows = (fit["used"] / np.float32(whole.sizes["y"])).astype(np.float32)
    return xr.Dataset(
        {
            "mean": fit["level"].mean("y").assign_attrs(units="DN", long_name="mean overscan level"),
            "rms": fit["rms"],
            "step": fit["step"],
            "rows": rows.assign_attrs(units="1", long_name="share of the rows in use of the overscan profile"),
            "flag": overscan_flag(fit, highest=highest, step=step),
        }
    )


def bias_quality(
    bias: xr.Dataset,
    read_noise: xr.DataArray,
    nominal: xr.DataArray,
    *,
    tolerance: float = 0.05,
    structure: float = 5.0,
    rows: int = BAND,
) -> xr.Dataset:
    """Judge a master bias.

    Parameters
    ----------
    bias : Dataset of ``bias`` (DN) and ``count``, each (..., ccd, quadrant, y, x)
        From ``master_bias``.
    read_noise : (..., ccd, quadrant)
        Measured, of ``masters.noise``.
    nominal : (..., ccd, quadrant)
        What it should be, in the same units: the header's, or that of another night.
    tolerance : float
        Of the read noise, relative (LSST cp_verify's 5 %).
    structure : float
        DN, of the master.
    rows : int
        Of a band; fewer than 50 if the bias holds but a sample of its rows.

    Returns
    -------
    Dataset
        Each (..., ccd, quadrant): ``level``, the median; ``structure``, 1.4826 MAD; ``row_range`` and
        ``column_range``, peak to peak of the medians of bands of 50 rows and of 50 columns (DN); ``rejected``,
        share of the counts; ``read_noise_ratio`` (1), measured / nominal; ``flag`` (uint8). Lazy if the bias is.
    """
    require_units(bias["bias"], "DN")
    if read_noise.attrs.get("units") != nominal.attrs.get("units"):
        units = read_noise.attrs.get("units"), nominal.attrs.get("units")
        raise ValueError(f"read noise is in {units[0]!r}, nominal in {units[1]!r}: expected the same")
    level, mad, across_rows, across_columns = of_images(partial(_bias_numbers, rows=rows), bias["bias"], outputs=4)
    measured, expected = xr.align(read_noise, nominal, join="exact")
    ratio = (measured / expected).astype(np.float32)
    flag = flags(read_noise=~(abs(ratio - 1) <= tolerance), structure=~(mad <= structure))
    return xr.Dataset(
        {
            "level": level.assign_attrs(units="DN", long_name="median of the master bias"),
            "structure": mad.assign_attrs(units="DN", long_name="1.4826 MAD of the master bias"),
            "row_range": across_rows.assign_attrs(units="DN", long_name="range of the medians of 50 rows"),
            "column_range": across_columns.assign_attrs(
                units="DN", long_name="range of the medians of bands of 50 columns"
            ),
            "rejected": rejected(bias["count"]),
            "read_noise_ratio": ratio.assign_attrs(units="1", long_name="read noise: measured / nominal"),
            "flag": flag.assign_attrs(long_name="master bias: what is wrong"),
        }
    )


def _bias_numbers(image: NDArray[np.float32], *, rows: int) -> tuple[float, float, float, float]:
    level, sigma = centre(image)
    bands = block_medians(image, rows, image.shape[1]), block_medians(image, image.shape[0], BAND)
    return level, sigma, span(bands[0]), span(bands[1])


def settling(
    exposures: xr.Dataset,
    bias: xr.DataArray,
    *,
    skip: int = SKIP,
    detrending: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Follow the biases of a run as they settle, so that the number to skip can be chosen from data.

    Parameters
    ----------
    exposures : Dataset
        Raw biases, all of the run, the first too.
    bias : (ccd, quadrant, y, x) float32, DN
        Master bias of the settled ones.
    skip : int
        From this number in the run on they count as settled.
    detrending : mapping, optional
        Settings of the detrending steps, see :func:`~ztfzarr.masters.frames.calibrated_frames`.

    Returns
    -------
    Dataset
        ``number`` (time): in its run, from 0. Each (time, ccd, quadrant) float32, DN: ``level``, of the overscan
        above that of the settled; ``offset``, median of the frame minus the master; ``shape``, the range of its
        medians in 8 x 8 blocks, in which noise leaves some hundredths of DN. Lazy if the exposures are.
    """
    frames = calibrated_frames(exposures, **(detrending or {}))
    return frames_settling(frames, exposures["time"], matching_master(bias, frames.counts), skip=skip)


def frames_settling(frames: Frames, time: xr.DataArray, bias: xr.DataArray, *, skip: int = SKIP) -> xr.Dataset:
    """Follow frames as they settle: :func:`settling` of any rows.

    Parameters
    ----------
    frames : Frames
        Biases, all of the run.
    time : (time) datetime64
        Of the frames.
    bias : (ccd, quadrant, y, x) float32, DN
        Master bias, of the frames' own CCDs, quadrants, rows and columns.
    skip : int
        As of :func:`settling`.

    Returns
    -------
    Dataset
        As of :func:`settling`.
    """
    offset, shape = of_images(_shape_numbers, frames.counts, frames.level, bias, outputs=2)
    level = frames.level.mean("y")
    level = (level - level.isel(time=settled(time, skip=skip)).mean("time")).astype(np.float32)
    return xr.Dataset(
        {
            "number": number_in_run(time).assign_attrs(units="1", long_name="number in the run"),
            "level": level.assign_attrs(units="DN", long_name="overscan level above the settled"),
            "offset": offset.assign_attrs(units="DN", long_name="median of frame minus master bias"),
            "shape": shape.assign_attrs(units="DN", long_name="range of frame minus master bias, in 8 x 8 blocks"),
        }
    )


def _shape_numbers(
    counts: NDArray[np.float32], level: NDArray[np.float32], bias: NDArray[np.float32]
) -> tuple[float, float]:
    rest = counts - level[:, np.newaxis] - bias
    blocks = block_medians(rest, -(-rest.shape[0] // GRID), -(-rest.shape[1] // GRID))
    return (float(np.nanmedian(blocks)), span(blocks)) if np.isfinite(blocks).any() else (np.nan, np.nan)


def science_quality(
    science: xr.DataArray, *, mask: xr.DataArray | None = None, stride: int = 4, lowest: float = -1.0
) -> xr.Dataset:
    """Measure sky and noise of science exposures.

    Parameters
    ----------
    science : (..., y, x) float32, DN
        Calibrated, from ``science``.
    mask : (..., y, x) uint16, optional
        Pixels where it is not 0 are left out.
    stride : int
        Each ``stride``-th row is looked at.
    lowest : float
        DN: a sky below it is flagged; it was seen where the overscan had failed.

    Returns
    -------
    Dataset
        Each (...) float32, DN: ``sky``, the median; ``noise``, 1.4826 MAD / sqrt(2) of the differences of
        neighbours along a row, in which sky gradients and most of the stars cancel; ``flag`` (uint8). Lazy if
        ``science`` is.
    """
    require_units(science, "DN")
    rows = {"y": slice(None, None, stride)}
    plain = science.isel(rows) if mask is None else science.isel(rows).where(mask.isel(rows) == 0)
    sky, noise = of_images(_sky_numbers, plain, outputs=2)
    return xr.Dataset(
        {
            "sky": sky.assign_attrs(units="DN", long_name="median"),
            "noise": noise.assign_attrs(units="DN", long_name="robust noise of a pixel"),
            "flag": flags(no_sky=sky.isnull(), negative=sky < lowest).assign_attrs(
                long_name="science exposure: what is wrong"
            ),
        }
    )


def _sky_numbers(image: NDArray[np.float32]) -> tuple[float, float]:
    return centre(image)[0], centre(image[:, 1:] - image[:, :-1])[1] / np.sqrt(2)
