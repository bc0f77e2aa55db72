"""open_cube: bit for bit astropy's values, lazily, whatever is selected, whatever is lost."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import same_bits
from stores import astropy_cube, ccd_of, exposure_of, flip, shard
from xarray.core import indexing
from zarr.storage import LocalStore

import ztfzarr
from ztfzarr.errors import StoreError
from ztfzarr.ingest import run
from ztfzarr.ingest.run import ingest
from ztfzarr.store import cube as cube_module
from ztfzarr.store import decoded, raw, register, template
from ztfzarr.store.objects import LocalObjects, open_objects
from ztfzarr.store.raw import FILE_OWNED
from ztfzarr.store.shard import shard_format
from ztfzarr.store.threads import windowed

EXPOSURES = 4


@pytest.fixture(scope="module")
def truth(raw_files: list[Path]) -> SimpleNamespace:
    return astropy_cube(raw_files)


@pytest.fixture(scope="module")
def cube(night_store: Path) -> xr.Dataset:
    return ztfzarr.open_cube(night_store)


@pytest.fixture(scope="module")
def tiled(raw_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A store with 3 x 3 chunks a quadrant, the last ones cut by its edges; later exposures ingested first."""
    files = raw_files[-2 * EXPOSURES :]
    path = tmp_path_factory.mktemp("tiled") / "tiled.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(template, "CHUNK", {"y": 32, "x": 40})
        ingest(path, files[4:])
        ingest(path, files[:4])
    return SimpleNamespace(path=path, truth=astropy_cube(files), files=files)


def outer(values: np.ndarray, key: tuple) -> np.ndarray:
    """Index each axis by itself."""
    for axis in reversed(range(values.ndim)):
        values = values[(slice(None),) * axis + (key[axis],)]
    return values


def indexers(length: int) -> st.SearchStrategy:
    position = st.integers(-length, length - 1)
    return st.one_of(position, st.slices(length), st.lists(position, max_size=6).map(lambda i: np.array(i, int)))


# Values


def test_whole_cube_is_astropy_s(cube, truth):
    assert cube.exposure.values.tolist() == truth.exposure
    assert same_bits(cube.raw.values, truth.raw)
    assert same_bits(cube.overscan.values, truth.overscan)


def test_absent_files_are_nan(cube):
    others = cube.sel(ccd=[1, 3, 16])
    assert np.isnan(others.raw.values).all()
    assert np.isnan(others.overscan.values).all()
    assert not others.present.values.any()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_outer_selection_is_the_slice_of_the_whole(tiled, data):
    name = data.draw(st.sampled_from(["raw", "overscan"]))
    expected = getattr(tiled.truth, name)
    array = ztfzarr.open_cube(tiled.path)[name]
    key = tuple(data.draw(indexers(n)) for n in array.shape)
    picked = array.isel(dict(zip(array.dims, key, strict=True)))
    assert same_bits(picked.values, outer(expected, key))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_selections_of_selections(tiled, data):
    array = ztfzarr.open_cube(tiled.path).raw.isel(ccd=[1, 10])
    expected = tiled.truth.raw[:, [1, 10]]
    for _ in range(2):
        slices = tuple(data.draw(st.slices(n)) for n in array.shape)
        array, expected = array[slices], expected[slices]
    assert same_bits(array.values, expected)


@pytest.mark.parametrize("stop", [None, -1])
def test_reversed_slices_as_versions_of_xarray_write_them(tiled, stop):
    array = ztfzarr.open_cube(tiled.path).raw.variable._data
    while not isinstance(array, decoded.DecodedArray):
        array = array.array
    key = indexing.BasicIndexer((2, 1, 0, slice(69, stop, -3), slice(5, stop, -1)))
    exposure = xr.open_zarr(tiled.path / "raw", chunks=None).exposure.values[2]
    expected = tiled.truth.raw[tiled.truth.exposure.index(exposure), 1, 0]
    assert same_bits(array[key], expected[::-3, 5::-1])


def test_pointwise_selection(tiled):
    points = {
        dim: xr.DataArray(i, dims="p")
        for dim, i in {"time": [3, 0, 3], "y": [69, 0, 31], "x": [2, 95, 40]}.items()
    }
    picked = ztfzarr.open_cube(tiled.path).raw.isel(ccd=1, quadrant=2).isel(points)
    expected = tiled.truth.raw[[3, 0, 3], 1, 2, [69, 0, 31], [2, 95, 40]]
    assert same_bits(picked.values, expected)


def test_open_fits_is_the_same_dataset(cube, night):
    files = ztfzarr.open_fits(night / "raw")
    xr.testing.assert_equal(files.load(), cube.drop_vars("source_sha256").load())
    assert set(files.coords) == set(cube.coords)
    for name in files.variables:
        assert files[name].attrs == cube[name].attrs, name
        assert files[name].dims == cube[name].dims


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_outer_selection_of_open_fits(truth, night, data):
    array = ztfzarr.open_fits(night / "raw").raw[:3, [1, 2]]
    key = tuple(data.draw(indexers(n)) for n in array.shape)
    picked = array.isel(dict(zip(array.dims, key, strict=True)))
    assert same_bits(picked.values, outer(truth.raw[:3, [1, 2]], key))


def test_open_fits_gives_what_is_picked_twice(truth, night):
    key = ([0, 0], [1, 1], [2, 2, 0], [3, 3], [1])
    array = ztfzarr.open_fits(night / "raw").raw
    assert same_bits(array.isel(dict(zip(array.dims, key, strict=True))).values, outer(truth.raw, key))


def test_engine_is_open_cube(cube, night_store):
    opened = xr.open_dataset(night_store, engine="ztfzarr")
    assert opened.chunks == {}
    xr.testing.assert_identical(opened, cube)
    assert "gain" not in xr.open_dataset(night_store, engine="ztfzarr", drop_variables="gain")


def test_engine_does_not_guess(night_store):
    assert "zscale" in xr.open_dataset(night_store / "raw", engine="zarr", consolidated=True)


def test_nights_ingested_out_of_order_are_sorted(tiled):
    stored = xr.open_zarr(tiled.path / "raw", chunks=None)
    assert not stored.indexes["time"].is_monotonic_increasing
    cube = ztfzarr.open_cube(tiled.path)
    assert cube.indexes["time"].is_monotonic_increasing
    assert cube.exposure.values.tolist() == tiled.truth.exposure
    assert cube.source_name.sel(ccd=2).values.tolist() == [p.name for p in tiled.files if ccd_of(p) == 2]


def test_no_store(tmp_path):
    with pytest.raises(StoreError, match="no store with raw exposures"):
        ztfzarr.open_cube(tmp_path / "none.zarr")


def test_store_without_exposures(tmp_path):
    register.create_raw(open_objects(tmp_path / "empty.zarr"), (70, 96), 30)
    cube = ztfzarr.open_cube(tmp_path / "empty.zarr")
    assert cube.raw.shape == (0, 16, 4, 70, 96)
    assert cube.raw.values.size == 0


# Laziness


@pytest.fixture
def reads(monkeypatch):
    """The chunks that are read: (array, row, CCD index) to positions (quadrant, y, x)."""
    seen = {}

    def counting(objects, key, form, positions):
        _, name, _, row, ccd, *_ = key.split("/")
        seen.setdefault((name, int(row), int(ccd)), []).extend(p[2:] for p in positions)
        return read(objects, key, form, positions)

    read = decoded.read_chunks
    monkeypatch.setattr(decoded, "read_chunks", counting)
    return seen


def test_opening_reads_the_times_only(night_store, monkeypatch):
    keys = []
    get, local_get = LocalStore.get, LocalObjects.get

    async def zarr_get(self, key, *args, **kwargs):
        keys.append(f"{self.root.name}/{key}")
        return await get(self, key, *args, **kwargs)

    monkeypatch.setattr(LocalStore, "get", zarr_get)
    monkeypatch.setattr(
        LocalObjects, "get", lambda self, key: keys.append(f"{self.root.name}/{key}") or local_get(self, key)
    )
    ztfzarr.open_cube(night_store)
    chunks = {key for key in keys if "/c/" in key}
    assert chunks == {"raw/time/c/0"} | {
        f"raw/{label}/c/0" for label in ("ccd", "quadrant", "y", "x", "x_overscan")
    }


def test_selecting_reads_nothing(night_store, reads):
    cube = ztfzarr.open_cube(night_store)
    day = cube.sel(time=cube.night == 20200801, ccd=2).isel(y=slice(10, 20))
    assert day.raw.shape == (18, 4, 10, 96)
    repr(day)
    assert reads == {}


def test_a_selection_reads_the_chunks_it_touches(tiled, reads):
    array = ztfzarr.open_cube(tiled.path).raw
    # Rows 23 and 24 are of two chunks of 24 rows; columns 0 and 95 of the first and last of 32 columns.
    array.isel(time=[0, 3], ccd=[1, 5], quadrant=2, y=slice(23, 25), x=[95, 0]).load()
    touched = {(2, y, x) for y in (0, 1) for x in (0, 2)}
    files = {key[1:] for key in reads}
    assert {key[0] for key in reads} == {"raw", "zscale", "zzero"}
    assert len(files) == 2, "absent files are not looked for"
    assert all(set(reads["raw", *file]) == touched and len(reads["raw", *file]) == 4 for file in files)


def test_a_selection_of_overscan_reads_no_pixels(tiled, reads):
    ztfzarr.open_cube(tiled.path).overscan.isel(time=0, ccd=1, quadrant=0, y=0).load()
    assert {key[0] for key in reads} == {"overscan", "zscale", "zzero"}


def test_chunk_makes_dask_that_computes_the_same(tiled, reads):
    cube = ztfzarr.open_cube(tiled.path)
    assert not dask.is_dask_collection(cube)
    assert cube.chunks == {}
    lazy = cube.chunk(time=1, ccd=1)
    assert lazy.raw.chunks[:2] == ((1,) * EXPOSURES, (1,) * 16)
    assert reads == {}
    with dask.config.set(scheduler="threads", num_workers=8):
        assert same_bits(lazy.raw.compute().values, tiled.truth.raw)


def test_every_opening_is_its_own_to_dask(tiled):
    """A result that a cluster holds must not answer for a store that has grown since."""
    one, other = (ztfzarr.open_cube(tiled.path).raw.chunk(time=1) for _ in range(2))
    assert one.data.name != other.data.name
    array = ztfzarr.open_cube(tiled.path).raw
    assert array.chunk(time=1).data.name == array.chunk(time=1).data.name


def test_dask_need_not_be_installed(night_store):
    code = (
        "import sys; sys.modules['dask'] = None; import ztfzarr; ztfzarr.open_cube(sys.argv[1]).raw[0, 1].load()"
    )
    subprocess.run([sys.executable, "-c", code, str(night_store)], check=True, timeout=120)


def test_subsampling_does_not_hold_what_it_skips(cube):
    cube.raw.isel(time=0, y=0).load()
    tracemalloc.start()
    small = cube.raw.isel(y=slice(None, None, 10), x=slice(5, None, 10)).load()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < small.nbytes + 4e6 < cube.raw.nbytes / 5


def test_windowed_takes_few_items_ahead():
    from concurrent.futures import ThreadPoolExecutor

    taken = []
    with ThreadPoolExecutor(2) as pool:
        results = windowed(pool, lambda i: i * i, (taken.append(i) or i for i in range(100)), 5)
        assert [next(results) for _ in range(3)] == [0, 1, 4]
        assert len(taken) <= 3 + 5
        assert list(results) == [i * i for i in range(3, 100)]


# Other processes


def test_pickled_relative_paths_hold_elsewhere(tiled, tmp_path, monkeypatch):
    monkeypatch.chdir(tiled.path.parent)
    array = ztfzarr.open_cube("tiled.zarr").raw.isel(ccd=1)
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(pickle.dumps(array))
    assert same_bits(again.values, tiled.truth.raw[:, 1])
    assert same_bits(array.values, tiled.truth.raw[:, 1])


@pytest.mark.slow
def test_dask_distributed_workers(tiled):
    script = """
import sys, numpy as np, ztfzarr
from distributed import Client

if __name__ == "__main__":
    with Client(n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as client:
        lazy = ztfzarr.open_cube(sys.argv[1]).raw.chunk(time=1, ccd=4)
        np.save(sys.argv[2], lazy.compute().values)
"""
    result = tiled.path.parent / "result.npy"
    program = tiled.path.parent / "cluster.py"
    program.write_text(script)
    subprocess.run([sys.executable, str(program), str(tiled.path), str(result)], check=True, timeout=120)
    assert same_bits(np.load(result), tiled.truth.raw)


def test_a_forked_process_reads_too(tiled):
    """multiprocessing forks on Linux: threads of the parent's pools are not there any more."""
    code = """
import os, sys, ztfzarr
a = ztfzarr.open_cube(sys.argv[1]).raw[0, 1]
mine = a.values.tobytes()
child = os.fork()
if child == 0:
    os._exit(0 if a.values.tobytes() == mine else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", code, str(tiled.path)], check=True, timeout=60)


# Loss and damage


def file_values(store: Path, row: int, ccd: int) -> tuple[np.ndarray, np.ndarray]:
    one = ztfzarr.open_cube(store).isel(time=row).sel(ccd=ccd)
    return one.raw.values, one.overscan.values


@pytest.mark.parametrize("name", FILE_OWNED)
def test_a_lost_shard_reads_nan(store_copy, truth, name):
    shard(store_copy, name, 3, 11).unlink()
    quadrants, overscans = file_values(store_copy, 3, 11)
    assert np.isnan(quadrants).all() == (name != "overscan")
    assert np.isnan(overscans).all() == (name != "raw")
    rest = ztfzarr.open_cube(store_copy).raw.sel(ccd=2)
    assert same_bits(rest.values, truth.raw[:, 1])


@pytest.mark.parametrize("name", ["present", "zdither"])
def test_a_lost_table_reads_nan(store_copy, name):
    for chunk in (store_copy / "raw" / name / "c").rglob("*"):
        if chunk.is_file():
            chunk.unlink()
    assert np.isnan(ztfzarr.open_cube(store_copy).raw.values).all()


@pytest.mark.parametrize("name", FILE_OWNED)
@pytest.mark.parametrize("offset", [10, -1], ids=["chunk", "index"])
def test_a_damaged_shard_raises_and_is_named(store_copy, name, offset):
    path = shard(store_copy, name, 3, 11)
    flip(path, offset)
    with pytest.raises(StoreError, match=path.relative_to(store_copy).as_posix()):
        file_values(store_copy, 3, 11)


def test_damage_hurts_only_what_it_hits(tiled, tmp_path):
    import shutil

    store = Path(shutil.copytree(tiled.path, tmp_path / "copy.zarr"))
    flip(shard(store, "raw", 0, 2), 10)  # the first chunk: quadrant 1, rows 0-23, columns 0-31
    array = ztfzarr.open_cube(store).raw.isel(time=2).sel(ccd=2)
    assert same_bits(array.sel(quadrant=1, y=slice(24, None)).values, tiled.truth.raw[2, 1, 0, 24:])
    with pytest.raises(StoreError, match="checksum"):
        array.sel(quadrant=1).load()


@pytest.mark.parametrize("name", ["present", "zdither"])
def test_a_damaged_table_is_named(store_copy, name):
    flip(next(p for p in (store_copy / "raw" / name / "c").rglob("*") if p.is_file()), 8)
    with pytest.raises(StoreError, match=f"raw/{name} is damaged"):
        ztfzarr.open_cube(store_copy).raw.isel(time=0, ccd=1).load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda text: text.replace('"format": 1', '"format": 2'), "format 2", id="format"),
        pytest.param(lambda text: text[:1000], "damaged", id="truncated"),
        pytest.param(lambda text: "[]", "damaged", id="list"),
        pytest.param(lambda text: text.replace("consolidated_metadata", "other"), "format 1", id="unconsolidated"),
    ],
)
def test_another_format_is_refused(store_copy, change, message):
    path = store_copy / "raw" / "zarr.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(StoreError, match=message):
        ztfzarr.open_cube(store_copy)


# Beside writers


def registered(number: int) -> register.Exposure:
    values = {name: variable.fill for name, variable in raw.COORDINATES.items()}
    return register.Exposure(number, values | {"time": 1_600_000_000_000_000 + number, "night": 20200901})


def test_rows_that_are_registered_but_not_filled_read_nan(store_copy):
    register.register(open_objects(store_copy), [registered(20200901000001)])
    last = ztfzarr.open_cube(store_copy).isel(time=-1)
    assert last.exposure == 20200901000001
    assert np.isnan(last.raw.values).all()


def test_opening_while_exposures_are_registered(store_copy, monkeypatch):
    """The metadata is read twice, and may grow in between."""

    def late(objects, *arguments, **options):
        register.register(objects, [registered(20200901000002)])
        return open_group(objects, *arguments, **options)

    open_group = cube_module.open_group
    monkeypatch.setattr(cube_module, "open_group", late)
    cube = ztfzarr.open_cube(store_copy)
    assert cube.raw.shape[0] == cube.sizes["time"] == 19


def test_a_file_marked_while_it_is_read_is_nan_or_right(raw_files, tmp_path, monkeypatch):
    """Tables are read in the reverse order of the mark: what is present has its dither."""
    store, path = tmp_path / "s.zarr", raw_files[-1]
    files = []
    with monkeypatch.context() as patch:
        patch.setattr(run, "mark", lambda objects, batch, **options: files.extend(batch) or [])
        ingest(store, [path])

    def late(array, name, block):
        values = table(array, name, block)
        register.mark(open_objects(store), files)
        return values

    table = decoded.DecodedArray._table
    monkeypatch.setattr(decoded.DecodedArray, "_table", late)
    array = ztfzarr.open_cube(store).raw.isel(time=0).sel(ccd=ccd_of(path))
    assert np.isnan(array.values).all()
    assert same_bits(array.values, astropy_cube([path]).raw[0, ccd_of(path) - 1])


def test_mismatched_files_are_never_filled(night_store, raw_files):
    objects = open_objects(night_store)
    document = register.existing_document(objects)
    form = shard_format(raw.arrays_of(document)["raw"])
    assert form.shard == (1, 1, 4, 70, 96)
    wide = {"raw": np.zeros((4, 70, 97), np.int32)}
    with pytest.raises(StoreError, match="expected"):
        register.fill(objects, document, (0, exposure_of(raw_files[0]) % 16 + 1), wide)


def test_workers_see_the_cores_that_the_process_has():
    assert decoded._decoders()._max_workers == len(os.sched_getaffinity(0))
