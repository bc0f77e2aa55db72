"""``pocket fit``: a night's pockets fitted in a store, kept as a version, and used by flats and science."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from nights import ran

from ztfzarr import tables
from ztfzarr.errors import StoreError
from ztfzarr.ingest.run import ingest
from ztfzarr.masters.pocket_quality import fit_flags, trail_medians, with_table
from ztfzarr.recipe import read_recipe
from ztfzarr.reduce.pocket import measured_trails
from ztfzarr.reduce.remake import remake
from ztfzarr.reduce.run import reduce
from ztfzarr.reduce.versions import drop
from ztfzarr.schema import faults
from ztfzarr.simulate import simulate_night
from ztfzarr.steps.pocket import PARAMETERS
from ztfzarr.store.cube import open_cube
from ztfzarr.store.objects import open_objects

CCD = 6
SETTINGS = ("bias.skip=3", "flat.minimum=1", "pocket.correct=auto")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pocket")
    night = {"ccds": (CCD,), "shape": (616, 256), "flats": 1, "pocket": True}
    simulate_night(folder, bias=6, science=6, **night)
    simulate_night(folder, night=20200802, bias=0, science=3, **(night | {"flats": 0}))
    ingest(folder / "night.zarr", [folder / "raw"])
    return folder / "night.zarr"


@pytest.fixture(scope="module")
def fitted(store: Path) -> xr.Dataset:
    assert ran("pocket", "fit", store, "--night", "2020-08-01", "-q") == 0
    return xr.open_zarr(f"{store}/pocket/v1", chunks=None, zarr_format=3).isel(night=0).sel(ccd=CCD).load()


def test_a_night_recovers_the_pockets(fitted: xr.Dataset) -> None:
    """Six skies and eleven flats of 616 rows: what the fit gives is within four of its errors of the truth."""
    known = tables.pocket()
    for name in PARAMETERS:
        off = np.log(fitted[name].values / known[name][CCD - 1])
        assert (np.abs(off) < 4 * fitted[f"{name}_error"].values).all(), name
        assert (np.abs(off) < (0.3 if name == "nmax" else 0.05)).all(), name
    assert (fitted["chi2"] < 2).all()
    assert (fitted["flag"] == 0).all()


def test_trails_are_followed(fitted: xr.Dataset) -> None:
    for kind, lowest in (("flat", 25_000), ("sky", 90)):
        assert (fitted[f"{kind}_level"] > lowest).all()
        np.testing.assert_allclose(fitted[f"{kind}_ratio"], 1, atol=0.03)
    assert (fitted["flat_trail"] > fitted["sky_trail"]).all()


def test_version_is_as_its_schema_says(store: Path, fitted: xr.Dataset) -> None:
    document = json.loads((store / "pocket/v1/zarr.json").read_text())
    assert faults(document, "pocket") == []
    document["consolidated_metadata"]["metadata"]["cmax"]["attributes"]["units"] = "electron"
    assert "'DN' was expected" in faults(document, "pocket")[0]


def test_a_night_without_light_is_refused(store: Path) -> None:
    (report,) = reduce(store, ["pocket"], version="v2", recipe=read_recipe("", ["pocket_fit.minimum=40"]))
    assert report.made == 0
    assert report.refused[0][1] == "17 exposures of 50 DN since 2019-10-22: expected 40, flats and sky"


def test_nothing_is_fitted_before_the_pockets(store: Path) -> None:
    late = read_recipe("", ["pocket.from=2021-01-01"])
    (report,) = reduce(store, ["pocket"], version="v3", recipe=late)
    assert report.refused[0][1].startswith("0 exposures of 50 DN since 2021-01-01")


def test_flats_and_science_take_the_fit(store: Path, fitted: xr.Dataset) -> None:
    with_fit = read_recipe("", [*SETTINGS, "pocket.fit=v1"], masters="v5")
    with_table = read_recipe("", SETTINGS, masters="v6")
    reports = reduce(store, version="v5", recipe=with_fit) + reduce(store, version="v6", recipe=with_table)
    assert [len(report.refused) for report in reports] == [0] * 6
    mine, table = (xr.open_zarr(f"{store}/science/{v}", chunks=None, zarr_format=3) for v in ("v5", "v6"))
    row = int(np.flatnonzero(mine["present"].sel(ccd=CCD).values)[0])
    one, other = (v["science"].isel(time=row).sel(ccd=CCD).values for v in (mine, table))
    good = mine["mask"].isel(time=row).sel(ccd=CCD).values == 0
    difference = (one - other)[good]
    assert np.abs(difference).max() > 0  # the fit is used, not the table
    assert np.std(difference) < 0.1
    for kind in ("science", "flat"):
        entry = xr.open_zarr(f"{store}/{kind}/v5", chunks=None, zarr_format=3)["provenance"].values.ravel()
        named = {json.loads(text)["masters"].get("pocket") for text in entry if text}
        assert named == {"pocket/v1/20200801"}


def test_what_takes_the_fit_is_made_again(store: Path, fitted: xr.Dataset) -> None:
    """After flats and science were made with it; the fit itself stays while they do."""
    assert (store / "science/v5").exists()
    with pytest.raises(StoreError, match="flat/v5 is made with pocket/v1"):
        drop(store, "pocket", "v1")
    lost = [next((store / kind / "v5" / kind / "c").rglob("0/0/0")) for kind in ("flat", "science")]
    before = [path.read_bytes() for path in lost]
    for path in lost:
        path.unlink()
    report = remake(open_objects(store))
    assert report.refused == []
    assert [path.read_bytes() for path in lost] == before


def test_without_a_fit_near_it_an_exposure_is_refused(store: Path, fitted: xr.Dataset) -> None:
    """From the second night on pockets are others: the first night's fit is not of theirs."""
    settings = [*SETTINGS, "pocket.fit=v1", "pocket.from=2020-08-02", "science.across_epochs=true"]
    reports = reduce(store, version="v7", recipe=read_recipe("", settings, masters="v7"))
    assert [report.made for report in reports] == [1, 1, 6]  # masters are counted by CCD
    assert {reason for _, reason in reports[2].refused} == {
        "no fitted pocket of CCD 6 within 31 days on the same side of 2019-10-23, 2020-04-28, 2020-08-02"
    }


def test_an_unknown_fit_is_named(store: Path) -> None:
    recipe = read_recipe("", [*SETTINGS, "pocket.fit=v9"], masters="v8")
    reports = reduce(store, ["bias", "flat"], version="v8", recipe=recipe)
    assert "no pocket/v9" in reports[1].refused[0][1]
    assert "ztfzarr pocket fit --version v9" in reports[1].refused[0][1]


def test_a_quadrant_without_a_fit_has_the_tables_pocket(fitted: xr.Dataset) -> None:
    """A dead column among the last keeps its trails from being measured; the other quadrants have theirs."""
    one = fitted.expand_dims(ccd=[CCD])
    lost = one["quadrant"] == 2
    holed = one.assign({name: one[name].where(~lost) for name in (*PARAMETERS, "chi2")})
    filled = with_table(holed)
    for name in PARAMETERS:
        np.testing.assert_array_equal(filled[name].sel(ccd=CCD, quadrant=2), tables.pocket()[name][CCD - 1, 1])
        xr.testing.assert_equal(filled[name].where(~lost), holed[name])
    flags = fit_flags(filled, one, chi2=3.0, change=0.1)
    assert flags["poor_fit"].sel(ccd=CCD).values.tolist() == [False, True, False, False]


def test_trails_of_one_quadrant_may_be_lost(store: Path, fitted: xr.Dataset) -> None:
    """As they are where a column among the last is dead, in all exposures."""
    exposures = open_cube(store).sel(ccd=[CCD])
    exposures = exposures.isel(time=np.flatnonzero(exposures["imgtype"].values != "bias")[:4]).load()
    exposures["raw"].values[:, 0, 0, :, -4] = 0.0
    trails, why = measured_trails(read_recipe(""), exposures)
    assert why == {}
    assert np.isnan(trails["level"].isel(ccd=0, quadrant=0)).all()
    assert np.isfinite(trails["level"].isel(ccd=0, quadrant=slice(1, None))).all()


def test_ratio_tells_of_other_pockets(fitted: xr.Dataset) -> None:
    """Trails of half the charge are half of the table's, and flagged."""
    one = fitted.expand_dims(ccd=[CCD])
    trails = xr.Dataset({"level": one["flat_level"], "charge": one["flat_trail"] / 2}).expand_dims(time=2)
    trails["trail"] = trails["charge"].expand_dims(column=30)
    medians = trail_medians(trails, xr.DataArray(["flat", "flat"], dims="time"))
    np.testing.assert_allclose(medians["flat_ratio"], 0.5, atol=0.02)
    assert medians["sky_ratio"].isnull().all()
    flags = fit_flags(one, medians, chi2=3.0, change=0.1)
    assert [bool(flags[name].all()) for name in ("poor_fit", "limit", "changed")] == [False, False, True]


def test_a_fit_at_its_limits_is_flagged(fitted: xr.Dataset) -> None:
    one = fitted.expand_dims(ccd=[CCD])
    flags = fit_flags(one.assign(beta=one["beta"] * 0 + 0.1, chi2=one["chi2"] * np.nan), one, chi2=3.0, change=0.1)
    assert [bool(flags[name].all()) for name in ("poor_fit", "limit", "changed")] == [True, True, False]
