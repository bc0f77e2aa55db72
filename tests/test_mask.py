"""Masks against the simulation's bad columns, and against IPAC's own bits."""

from __future__ import annotations

import dask
import made
import numpy as np
import pytest
import xarray as xr

from ztfzarr.kernels.blocks import block_medians, spread
from ztfzarr.masters.bias import master_bias
from ztfzarr.masters.flat import master_flat
from ztfzarr.masters.mask import BITS, IPAC, MASKS, TO_IPAC, bad_pixels, ipac_mask, saturated, science_mask
from ztfzarr.simulate import Camera, camera
from ztfzarr.simulate.maps import DEAD, GOOD, HOT, LOW
from ztfzarr.steps.detrend import detrend
from ztfzarr.steps.overscan import overscan_flag, overscan_level, overscan_profile, subtract_overscan

SHAPE = (200, 160)
LAMPS = {2: "zg", 3: "zg", 7: "zr"}


@pytest.fixture(scope="module")
def masters() -> tuple[Camera, xr.Dataset, xr.Dataset]:
    one = camera([2, 6], SHAPE, 1)
    bias = master_bias(made.exposed(one, made.planned("b", bias=20)))
    lamp = made.exposed(one, [e for e in made.planned("f", flats=5) if e.led in LAMPS])
    return one, bias, master_flat(lamp, bias, leds=LAMPS)


@pytest.fixture(scope="module")
def exposure(masters: tuple[Camera, xr.Dataset, xr.Dataset]) -> xr.Dataset:
    return made.exposed(masters[0], made.planned("o", science=2)[:1])


def is_set(mask: xr.DataArray, name: str) -> np.ndarray:
    return (mask.values & MASKS[name]) != 0


def test_poor_columns_are_found_and_no_others(masters: tuple[Camera, xr.Dataset, xr.Dataset]) -> None:
    one, bias, flat = masters
    bad = bad_pixels(bias, flat)
    assert bad.dims == ("filter", "ccd", "quadrant", "y", "x")
    assert bad.dtype == np.uint16
    columns = np.broadcast_to(one.bad[:, :, np.newaxis], bad.shape[1:])
    kinds = {"dead": DEAD, "low_response": LOW, "hot": HOT}
    for z in range(2):
        for name, kind in kinds.items():
            found = is_set(bad[z], name)
            assert found[columns == kind].mean() > 0.999, name
            assert found[columns != kind].mean() < 2e-5, name
        good = bad.values[z][columns == GOOD]
        assert (good != 0).mean() < 1e-4


def test_high_noisy_and_missing_pixels(masters: tuple[Camera, xr.Dataset, xr.Dataset]) -> None:
    _, bias, flat = (m.copy(deep=True) if isinstance(m, xr.Dataset) else m for m in masters)
    at = {"ccd": 6, "quadrant": 3}
    flat["flat"].loc[{**at, "y": 20, "x": 30}] *= 1.3
    bias["count"].loc[{**at, "y": 21, "x": 30}] = 7
    bias["count"].loc[{**at, "y": 22, "x": 30}] = 8
    bias["bias"].loc[{**at, "y": 23, "x": 30}] = np.nan
    flat["count"].loc[{**at, "y": 24, "x": 30}] = 3
    bad = bad_pixels(bias, flat.sel(filter="zr")).sel(**at)[20:25, 30]
    names = ["high_response", "noisy", "", "no_calibration", "noisy"]
    assert bad.values.tolist() == [MASKS.get(name, 0) for name in names]


def test_a_dead_block_is_dead_and_low_corners_are_not(masters: tuple[Camera, xr.Dataset, xr.Dataset]) -> None:
    """The reference is local: vignetting is no fault, and a wholly dead block does not become the reference."""
    _, bias, flat = masters
    flat = flat.sel(filter="zg").copy(deep=True)
    shade = np.linspace(1, 0.6, SHAPE[0], dtype=np.float32)[:, np.newaxis]
    flat["flat"] = (flat["flat"] * shade).assign_attrs(units="1")
    flat["flat"].loc[{"ccd": 2, "quadrant": 1, "y": slice(0, 70), "x": slice(0, 90)}] *= 0.01
    bad = bad_pixels(bias, flat)
    assert is_set(bad, "dead")[0, 0, :70, :90].all()
    assert is_set(bad, "low_response")[1].mean() < 0.02


def test_thresholds_are_keywords(masters: tuple[Camera, xr.Dataset, xr.Dataset]) -> None:
    _, bias, flat = masters
    few, many = (is_set(bad_pixels(bias, flat, hot=k), "hot").mean() for k in (1000.0, 3.0))
    assert few == 0
    assert many > 0.005


def test_saturation_is_judged_above_the_overscan_before_linearity() -> None:
    raw = xr.DataArray(
        np.array([[55_099, 55_101], [np.nan, 55_101]], np.float32).reshape(1, 1, 2, 2),
        dims=("ccd", "quadrant", "y", "x"),
        coords={"ccd": [1], "quadrant": [1]},
        attrs={"units": "DN"},
    )
    level = raw[..., 0].copy(data=np.array([[[100.0, 102.0]]], np.float32)).assign_attrs(units="DN")
    assert saturated(raw, level).values.ravel().tolist() == [False, True, False, False]
    limit = xr.DataArray([[54_000.0]], dims=("ccd", "quadrant"), coords={"ccd": [1], "quadrant": [1]})
    assert saturated(raw, level, limit=limit).values.ravel().tolist() == [True, True, False, True]
    with pytest.raises(ValueError, match="raw is in 'electron', expected 'DN'"):
        saturated(raw.rename("raw").assign_attrs(units="electron"), level)


def composed(exposure: xr.Dataset, **options: object) -> tuple[xr.DataArray, xr.Dataset]:
    fit = overscan_level(overscan_profile(exposure["overscan"]))
    bad = xr.zeros_like(exposure["raw"][0], np.uint16).reset_coords(drop=True)
    return science_mask(exposure["raw"], fit["level"], detrend(exposure), bad, **options), fit  # type: ignore[arg-type]


def test_science_mask_composes(exposure: xr.Dataset) -> None:
    data = exposure.copy(deep=True)
    level = overscan_level(overscan_profile(data["overscan"]))["level"].values
    for x, counts in enumerate((49_000, 51_000, 56_000)):
        data["raw"][0, 0, 0, 5, x] = level[0, 0, 0, 5] + counts
    data["raw"][0, 0, 0, 5, 3] = np.nan
    data["overscan"][0, 1, 2] = np.nan
    data["overscan"][0, 1, 3, 100:] += 9
    hits = xr.zeros_like(data["raw"], bool)
    hits[0, 0, 1, 7, 8] = True
    fit = overscan_level(overscan_profile(data["overscan"]))
    mask, _ = composed(data, overscan_flag=overscan_flag(fit), cosmic_rays=hits)
    assert mask.dims == data["raw"].dims
    none = MASKS["no_data"] | MASKS["nan"]
    assert mask.values[0, 0, 0, 5, :4].tolist() == [0, MASKS["suspect"], MASKS["saturated"], none]
    assert mask.values[0, 0, 1, 7, 8] == MASKS["spike"]
    lost = MASKS["no_calibration"] | MASKS["nan"] | MASKS["suspect"]
    assert (mask.values[0, 1, 2] == lost).all()
    assert is_set(mask, "suspect")[0, 1, 3].all()


def test_science_mask_keeps_what_is_bad(
    masters: tuple[Camera, xr.Dataset, xr.Dataset], exposure: xr.Dataset
) -> None:
    _, bias, flat = masters
    bad = bad_pixels(bias, flat).sel(filter="zg")
    level = overscan_level(overscan_profile(exposure["overscan"]))["level"]
    mask = science_mask(exposure["raw"], level, detrend(exposure), bad)
    assert ((mask & bad) == bad).all()
    full = saturated(exposure["raw"], level)
    assert (is_set(mask, "saturated") == full).all()
    with pytest.raises(ValueError, match="exact"):
        science_mask(exposure["raw"], level, detrend(exposure), bad.sel(ccd=[2]))


def test_lazy_alike(masters: tuple[Camera, xr.Dataset, xr.Dataset], exposure: xr.Dataset) -> None:
    _, bias, flat = masters
    expected_bad = bad_pixels(bias, flat)
    expected = science_mask(*_parts(exposure), expected_bad.sel(filter="zg"))
    chunks = {"y": 70, "x": 50, "quadrant": 1}
    with dask.config.set(scheduler=made.tables_only):
        bad = bad_pixels(bias.chunk(chunks), flat.chunk(chunks))
        mask = science_mask(*_parts(exposure.chunk({"time": 1, **chunks})), bad.sel(filter="zg"))
    for lazy, eager in ((bad, expected_bad), (mask, expected)):
        assert dask.is_dask_collection(lazy.data)
        xr.testing.assert_identical(lazy.compute(), eager)
        assert lazy.attrs == eager.attrs


def _parts(exposure: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    whole = exposure["overscan"]
    whole = whole.chunk(y=-1, x_overscan=-1) if whole.chunks else whole
    level = overscan_level(overscan_profile(whole))["level"]
    return exposure["raw"], level, subtract_overscan(exposure["raw"], level)


def test_flags_follow_the_conventions(masters: tuple[Camera, xr.Dataset, xr.Dataset]) -> None:
    _, bias, flat = masters
    attrs = bad_pixels(bias, flat).attrs
    names = attrs["flag_meanings"].split()
    assert dict(zip(names, attrs["flag_masks"], strict=True)) == MASKS
    assert len(set(BITS.values())) == len(BITS)
    assert all(mask == 1 << BITS[name] <= np.iinfo(np.uint16).max for name, mask in MASKS.items())


# Cards of a real mask image: ztf_20200924431759_000655_zr_c13_o_q3_mskimg.fits.
CARDS = """
BIT00   =                    0 / AIRCRAFT/SATELLITE TRACK
BIT01   =                    1 / CONTAINS SEXTRACTOR DETECTION
BIT02   =                    2 / LOW RESPONSIVITY
BIT03   =                    3 / HIGH RESPONSIVITY
BIT04   =                    4 / NOISY
BIT05   =                    5 / GHOST FROM BRIGHT SOURCE
BIT06   =                    6 / POSSIBLE GHOST FROM CHARGE SPILLAGE
BIT07   =                    7 / PIXEL SPIKE (POSSIBLE RAD HIT)
BIT08   =                    8 / SATURATED
BIT09   =                    9 / DEAD (UNRESPONSIVE)
BIT10   =                   10 / NAN (not a number)
BIT11   =                   11 / CONTAINS PSF-EXTRACTED SOURCE POSITION
BIT12   =                   12 / HALO FROM BRIGHT SOURCE
BIT13   =                   13 / RESERVED FOR FUTURE USE
BIT14   =                   14 / RESERVED FOR FUTURE USE
BIT15   =                   15 / RESERVED FOR FUTURE USE
""".strip().splitlines()
WORDS = {
    "track": "TRACK", "source": "SEXTRACTOR", "low_response": "LOW RESP", "high_response": "HIGH RESP",
    "noisy": "NOISY", "ghost": "GHOST FROM BRIGHT", "spillage": "SPILLAGE", "spike": "SPIKE",
    "saturated": "SATURATED", "dead": "DEAD", "nan": "NAN", "psf_source": "PSF-EXTRACTED", "halo": "HALO",
}  # fmt: skip


def test_bits_are_those_of_a_real_mask() -> None:
    assert set(WORDS) == set(IPAC)
    assert all(WORDS[name] in CARDS[bit] for name, bit in IPAC.items())
    assert all(BITS[name] == IPAC[name] for name in BITS if name in IPAC)
    ours = {name: bit for name, bit in BITS.items() if name not in IPAC}
    assert set(ours) == set(TO_IPAC)
    assert {name for name, bit in ours.items() if "RESERVED" not in CARDS[bit]} == {"hot"}
    assert 6141 >> BITS["hot"] & 1  # who rejects IPAC's bad bits rejects it


def test_translation_for_readers_of_ipac_s_masks() -> None:
    values = {name: np.uint16(mask) for name, mask in MASKS.items()}
    mask = xr.DataArray(np.array([*values.values()]), dims="x")
    found = dict(zip(values, ipac_mask(mask).values.tolist(), strict=True))
    for name, value in found.items():
        target = name if name in IPAC else TO_IPAC[name]
        assert value == (0 if target is None else 1 << IPAC[target])
    assert ipac_mask(mask).dtype == np.uint16


@pytest.mark.parametrize("shape", [(64, 64), (70, 96), (33, 5), (200, 161)], ids=str)
def test_blocks_cover_every_pixel(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    image = rng.normal(size=shape).astype(np.float32)
    image[3, 2] = np.nan
    blocks = block_medians(image, 32, 16)
    whole = spread(blocks, shape)
    assert whole.shape == shape
    edges = [np.arange(n + 1) * side // n for n, side in zip(blocks.shape, shape, strict=True)]
    for i, j in np.ndindex(blocks.shape):
        block = np.s_[edges[0][i] : edges[0][i + 1], edges[1][j] : edges[1][j + 1]]
        assert (whole[block] == np.float32(np.nanmedian(image[block]))).all()
    assert np.isnan(block_medians(image * np.nan, 32, 16)).all()
