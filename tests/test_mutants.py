"""Subtly wrong reductions, each of which a named check must catch: that the checks can fail."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import checks
import numpy as np
import pytest
import xarray as xr

from ztfzarr.geometry import linearity_epoch
from ztfzarr.kernels import combine
from ztfzarr.steps.detrend import DETREND

DAY = np.timedelta64(1, "D")


class Mutant(NamedTuple):
    """A name to replace, as module:attribute, what makes the wrong one of the right one, and who must notice."""

    name: str
    target: str
    wrong: Callable[[Any], Any]
    check: Callable[[], None]


def flipped_rows(right: Any) -> Any:
    def wrong(*args: Any, **options: Any) -> xr.Dataset:
        fit = right(*args, **options)
        return fit.assign(level=fit["level"].copy(data=fit["level"].values[..., ::-1]))

    return wrong


def flipped_level(right: Any) -> Any:
    def wrong(*args: Any, **options: Any) -> xr.DataArray:
        level = right(*args, **options)
        return level.copy(data=level.values[..., ::-1])

    return wrong


def one_read_side(_right: Any) -> Any:
    return lambda _quadrant, first, stop, _width: slice(first, stop)


def swapped_axes(right: Any) -> Any:
    def wrong(image: xr.DataArray, like: xr.DataArray) -> xr.DataArray:
        plain = right(image, like)
        return plain.copy(data=plain.values.swapaxes(-1, -2)) if plain.attrs["units"] == "1" else plain

    return wrong


def no_weights(right: Any) -> Any:
    return lambda lamps, _weights: right(lamps, {})


def inverted(right: Any) -> Any:
    return lambda *args, **options: 1 / right(*args, **options)


def as_listed(_right: Any) -> Any:
    return lambda time: xr.DataArray(np.arange(time.size), dims="time", coords={"time": time.values})


def a_day_early(_right: Any) -> Any:
    return lambda time, epochs: linearity_epoch(time + DAY, epochs)


def by_the_stack(right: dict[str, int]) -> dict[str, int]:
    return right | {"noise": combine.SPREAD}


def bias_after_scaling(right: Any) -> Any:
    def wrong(frames: Any, *, offset: xr.DataArray, **options: Any) -> xr.Dataset:
        combined = right(frames, **options)
        return combined.assign(mean=combined["mean"] - offset)

    return wrong


def without_count(right: Any) -> Any:
    def wrong(*args: Any, **options: Any) -> xr.Dataset:
        combined = right(*args, **options)
        return combined.assign(variance=combined["variance"] * combined["count"])

    return wrong


def relative_in_variance(right: Any) -> Any:
    def wrong(frames: Any, *, relative: float = 0.0, **options: Any) -> xr.Dataset:
        combined = right(frames, relative=relative, **options)
        more = (relative * combined["mean"]) ** 2 / combined["count"]
        return combined.assign(variance=combined["variance"] + more)

    return wrong


def gain_multiplied(right: Any) -> Any:
    def wrong(*args: Any) -> Any:
        return right(*args[:-2], 1 / args[-2], args[-1] / args[-2] ** 2)  # the read noise in DN stays

    return wrong


def by_position(right: Any) -> Any:
    def wrong(master: xr.DataArray, counts: xr.DataArray) -> xr.DataArray:
        return right(master, counts).assign_coords(quadrant=counts["quadrant"])

    return wrong


def without_clipping(right: Any) -> Any:
    return lambda profile, **options: right(profile, **(options | {"clip": 1e6}))


def linear_first(_right: Any) -> Any:
    return DETREND[::-1]


def whole_image_profile() -> None:
    checks.row_profile((5, 25), 0.05)


def late_columns() -> None:
    checks.detrended_frames((25, 30), (20200428,))


def epochs() -> None:
    checks.detrended_frames((5, 25))


FRAMES, FLAT, CALIBRATE = "ztfzarr.masters.frames", "ztfzarr.masters.flat", "ztfzarr.masters.calibrate"
OVERSCAN, LINEARITY = "ztfzarr.steps.overscan", "ztfzarr.steps.linearity"

MUTANTS = [
    Mutant("overscan rows flipped", f"{FRAMES}:sound_level", flipped_level, whole_image_profile),
    Mutant("overscan rows flipped, pixels", f"{OVERSCAN}:overscan_level", flipped_rows, epochs),
    Mutant("wrong read side", f"{OVERSCAN}:stored_columns", one_read_side, late_columns),
    Mutant(
        "fit without clipping", f"{OVERSCAN}:overscan_level", without_clipping, checks.star_beside_the_overscan
    ),
    Mutant("epoch off by a day", f"{LINEARITY}:linearity_epoch", a_day_early, epochs),
    Mutant("non-linearity before overscan", "ztfzarr.steps.detrend:DETREND", linear_first, checks.order_of_steps),
    Mutant("skip as listed", "ztfzarr.masters.selection:number_in_run", as_listed, checks.reading_order),
    Mutant("sigma of the stack", f"{FRAMES}:METHODS", by_the_stack, checks.struck_pixels),
    Mutant("bias after scaling", f"{FLAT}:combine_frames", bias_after_scaling, checks.bias_before_scaling),
    Mutant("LED weights ignored", f"{FLAT}:_weighted", no_weights, checks.led_weights),
    Mutant("k inverted", f"{FLAT}:relative_levels", inverted, checks.uniform_focal_plane),
    Mutant("response x/y swapped", f"{CALIBRATE}:_alike", swapped_axes, checks.response),
    Mutant("quadrants by position", f"{CALIBRATE}:_alike", by_position, checks.labels),
    Mutant("variance of one frame", "ztfzarr.masters.bias:combine_frames", without_count, checks.variance_planes),
    Mutant("relative part kept", f"{FLAT}:combine_frames", relative_in_variance, checks.variance_planes),
    Mutant("gain multiplied", f"{CALIBRATE}:pixel_variance", gain_multiplied, checks.variance_planes),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=[m.name for m in MUTANTS])
def test_a_mutant_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.check()  # the right reduction passes; data are made and scatter is measured by it
    module, name = mutant.target.split(":")
    owner = importlib.import_module(module)
    monkeypatch.setattr(owner, name, mutant.wrong(getattr(owner, name)))
    with pytest.raises(AssertionError):
        mutant.check()


def test_the_default_columns_hide_a_wrong_read_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """[5, 25) of 30 lies in the middle: the checks need other columns to see the side."""
    owner = importlib.import_module(OVERSCAN)
    monkeypatch.setattr(owner, "stored_columns", one_read_side(owner.stored_columns))
    epochs()
