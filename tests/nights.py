"""Two small nights, and what a store must hold of them: for the tests of object stores, copies and faults."""

from __future__ import annotations

from pathlib import Path

import pytest
from astropy.io import fits

from ztfzarr.cli import main
from ztfzarr.geometry import LED_FILTERS
from ztfzarr.ingest.run import ingest
from ztfzarr.recipe import read_recipe
from ztfzarr.reduce.run import reduce
from ztfzarr.simulate import simulate_night
from ztfzarr.store.objects import Objects

SHAPE = (48, 64)
NIGHTS = {20200801: {"bias": 3, "flats": 3, "science": 2}, 20200802: {"bias": 3, "flats": 0, "science": 1}}
LEDS = (2, 7)  # one of zg and one of zr are enough here
FILES = {20200801: 11, 20200802: 4}
SETTINGS = ("bias.skip=0", f"flat.without_leds={[led for led in LED_FILTERS if led not in LEDS]}")


def ran(*arguments: object) -> int:
    """Exit status of the command line."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code)


@pytest.fixture(scope="session")
def nights(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Two nights of one CCD, the second without flats."""
    folders = {}
    for night, counts in NIGHTS.items():
        folder = tmp_path_factory.mktemp("night")
        simulate_night(folder, night=night, ccds=(2,), shape=SHAPE, **counts)
        for file in folder.rglob("*_f.fits.fz"):
            if fits.getheader(file)["ILUM_LED"] not in LEDS:
                file.unlink()
        folders[night] = folder / "raw"
    return folders


@pytest.fixture(scope="session")
def local(nights: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the store in the bucket must hold."""
    store = tmp_path_factory.mktemp("store") / "night.zarr"
    for folder in nights.values():
        assert not ingest(store, [folder]).refused
        recipe = read_recipe("", SETTINGS, masters="v1")
        assert not [line for report in reduce(store, recipe=recipe) for line in report.refused]
    return store


def remote_contents(objects: Objects) -> dict[str, bytes]:
    """Every object that readers may see."""
    keys = [key for top in ("raw", "bias", "flat", "science") for key in (e.key for e in objects.entries(top))]
    return {key: objects.get(key) for key in (*keys, "zarr.json")}


def without_times(found: dict[str, bytes]) -> dict[str, bytes]:
    """What does not depend on when it was made."""
    return {key: data for key, data in found.items() if "/provenance/c/" not in key}
