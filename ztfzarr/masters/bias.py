"""Master bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from ztfzarr.masters.frames import CLIP, calibrated_frames, combine_frames
from ztfzarr.masters.selection import MINIMUM, SKIP, night_of_frames, require_frames, settled


def master_bias(
    exposures: xr.Dataset,
    *,
    skip: int = SKIP,
    minimum: int = MINIMUM,
    method: str = "noise",
    clip: float = CLIP,
    detrending: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Combine biases into a master bias.

    Parameters
    ----------
    exposures : Dataset
        Raw biases, from ``open_cube`` or ``open_fits``: any CCDs and quadrants, with all the rows.
    skip : int
        Biases left out at the start of each uninterrupted run, in time, while the level settles.
    minimum : int
        Frames that each CCD must have.
    method, clip
        See :func:`~ztfzarr.masters.frames.combine_frames`.
    detrending : mapping, optional
        Settings of the detrending steps, see :func:`~ztfzarr.masters.frames.calibrated_frames`.

    Returns
    -------
    Dataset
        Labelled ``night``, the first of the exposures'. ``bias`` (DN) and ``variance`` (DN2) float32, ``count``
        int16, each (ccd, quadrant, y, x). Lazy if the exposures are.

    Raises
    ------
    ValueError
        If an exposure is no bias, or a CCD has too few frames.
    """
    others = set(exposures["imgtype"].values.tolist()) - {"bias"}
    if others:
        raise ValueError(f"exposures of type {', '.join(sorted(map(str, others)))}: expected bias only")
    used = settled(exposures["time"], skip=skip)
    require_frames(exposures, used, minimum, f"master bias after the first {skip} of each run")
    frames = calibrated_frames(exposures.isel(time=used), **(detrending or {}))
    combined = combine_frames(frames, method=method, clip=clip).rename(mean="bias")
    combined["bias"].attrs["long_name"] = "master bias"
    combined["variance"].attrs["long_name"] = "variance of the master bias, by the noise model"
    combined["count"].attrs["long_name"] = "frames kept"
    return combined.assign_coords(night_of_frames(exposures))
