"""A store is plain Zarr: read with stock parts and the ten lines of the docs, nothing of ours installed."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from peers import same_bits
from stores import astropy_cube, plain_decoder, plain_decoder_source, shard
from zarr.codecs import Crc32cCodec, ShardingCodec
from zarr.codecs.numcodecs import PCodec

from ztfzarr.store import raw as raw_group
from ztfzarr.store.objects import LocalObjects
from ztfzarr.store.raw import FILE_OWNED
from ztfzarr.store.register import existing_document
from ztfzarr.store.shard import bad_chunks, decode_chunk, encode_shard, read_chunks, same_content, shard_format
from ztfzarr.store.template import arrays_of

# Refuses to import ztfzarr, whatever is installed; then the docs' own lines, then what the docs say to write.
SCRIPT = """
import sys, warnings

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "ztfzarr":
            raise ImportError("nothing of ours")

sys.meta_path.insert(0, Refuse())
{decoder}
warnings.simplefilter("ignore")
cube = xr.open_zarr(sys.argv[1] + "/raw", chunks=None).sortby("time")
cube = cube.isel(time=slice(None, None, int(sys.argv[3])))
shapes = [(cube.sizes["time"], 16, 4, cube.sizes["y"], cube.sizes[x]) for x in ("x", "x_overscan")]
out = [np.full(shape, np.nan, np.float32) for shape in shapes]
for t in range(cube.sizes["time"]):
    for c in (1, 10, 15):
        for number in range(1, 9):
            out[number > 4][t, c, (number - 1) % 4] = image(cube.isel(time=t, ccd=c), number)
np.savez(sys.argv[2], *out)
assert "ztfzarr" not in sys.modules
"""


def read_plainly(python: Path | str, store: Path, step: int) -> list[np.ndarray]:
    result = store.parent / f"plain-{step}.npz"
    code = SCRIPT.format(decoder=plain_decoder_source())
    subprocess.run([str(python), "-I", "-c", code, str(store), str(result), str(step)], check=True, timeout=900)
    with np.load(result) as arrays:
        return [arrays["arr_0"], arrays["arr_1"]]


def test_plain_xarray_and_the_docs_decoder_are_astropy(night_store, raw_files):
    truth = astropy_cube(raw_files)
    quadrants, overscans = read_plainly(sys.executable, night_store, 3)
    assert same_bits(quadrants, truth.raw[::3])
    assert same_bits(overscans, truth.overscan[::3])


@pytest.mark.slow
def test_in_an_environment_without_ztfzarr(night_store, raw_files, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    packages = ["zarr>=3.1.5", "xarray", "pcodec"]  # as the docs and `ztfzarr info` say
    subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True, timeout=600)
    assert subprocess.run([str(python), "-I", "-c", "import ztfzarr"], capture_output=True).returncode != 0
    truth = astropy_cube(raw_files)
    quadrants, overscans = read_plainly(python, night_store, 1)
    assert same_bits(quadrants, truth.raw)
    assert same_bits(overscans, truth.overscan)


def test_docs_decoder_on_any_part(night_store, raw_files):
    """Dither is undone by the labels y and x, so a part decodes as it does within the whole."""
    truth = astropy_cube(raw_files)
    cube = xr.open_zarr(night_store / "raw", chunks=None).sortby("time")
    part = cube.isel(time=-1, ccd=10, y=slice(60, 5, -7), x=[95, 3, 4], x_overscan=slice(28, None))
    for quadrant in (1, 2, 3, 4):
        expected = truth.raw[-1, 10, quadrant - 1][60:5:-7][:, [95, 3, 4]]
        assert same_bits(plain_decoder().image(part, quadrant), expected)
        expected = truth.overscan[-1, 10, quadrant - 1][60:5:-7, 28:]
        assert same_bits(plain_decoder().image(part, quadrant + 4), expected)


SPECIAL = np.array([-(2**31), -(2**31) + 1, -(2**31) + 2, 2143289344, 0, 7, -5], np.int32)


@pytest.mark.parametrize(("zdither", "scale"), [(0, 1.5), (9999, 1.5), (-10000, 1.5), (-32768, 1.5), (7, 0.0)])
def test_docs_decoder_on_special_values(zdither, scale):
    """NULL of CFITSIO and astropy, absent, exact zero, float bits, unknown dither; against our kernel."""
    from ztfzarr.kernels.dither import RANDOM, decode_rows

    integers = np.tile(SPECIAL, (4, 1))
    rows = {"y": np.arange(4)}
    raw = xr.DataArray(integers, dims=("y", "x"), coords=rows | {"x": np.arange(7)})
    zscale, zzero = (xr.DataArray(np.full(4, v), dims="y", coords=rows) for v in (scale, 3.25))
    decoded = plain_decoder().decode(raw, zscale, zzero, xr.DataArray(zdither))
    decode_rows(integers, zscale.values, zzero.values, zdither, 0, 0, RANDOM)
    expected = integers.view(np.float32) if zdither != -32768 else np.full((4, 7), np.nan, np.float32)
    assert same_bits(decoded, expected)


def test_docs_decoder_honours_present(store_copy):
    array = zarr.open_array(store_copy / "raw" / "present", mode="r+")
    array[2, 10] = 0
    file = xr.open_zarr(store_copy / "raw", chunks=None).isel(time=2, ccd=10)
    assert shard(store_copy, "raw", 2, 11).exists()
    assert np.isnan(plain_decoder().image(file, 1)).all()


def test_group_by_its_name_reads_the_same(night_store):
    by_path = xr.open_zarr(night_store / "raw", chunks=None)
    # xarray looks at the root first, which never has consolidated metadata, and warns that it has none.
    with pytest.warns(RuntimeWarning, match="consolidated"):
        by_name = xr.open_zarr(night_store, group="raw", chunks=None)
    xr.testing.assert_identical(by_name[["present", "gain"]].load(), by_path[["present", "gain"]].load())


# zarr and our shards


def values_of(name: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(7)
    if name in ("raw", "overscan"):
        return rng.integers(-(2**31), 2**31, shape, np.int32)
    return rng.normal(size=shape)


@pytest.mark.parametrize("name", FILE_OWNED)
def test_zarr_reads_what_encode_shard_got(store_copy, name):
    document = existing_document(LocalObjects(store_copy))
    metadata = arrays_of(document)[name]
    values = values_of(name, (1, 1, *metadata["shape"][2:]))
    data = encode_shard(shard_format(metadata), values, raw_group.DATA[name].fill)
    shard(store_copy, name, 5, 2).write_bytes(data)
    group = zarr.open_group(store_copy, path="raw", mode="r")
    np.testing.assert_array_equal(group[name][5, 1], values[0, 0])


@pytest.mark.parametrize(("shape", "chunk"), [((1, 2, 10, 14), (1, 1, 4, 7)), ((1, 4, 8, 6), (1, 4, 8, 6))])
def test_read_chunks_reads_what_zarr_wrote(tmp_path, shape, chunk):
    outer = tuple(-(-n // c) * c for n, c in zip(shape, chunk, strict=True))
    codec = ShardingCodec(chunk_shape=chunk, codecs=[PCodec(level=8, mode_spec="classic"), Crc32cCodec()])
    array = zarr.create_array(
        tmp_path / "a",
        shape=shape,
        chunks=outer,
        dtype="int32",
        fill_value=9,
        serializer=codec,
        compressors=None,
        filters=None,
    )
    values = values_of("raw", shape)
    array[...] = values
    objects, form = LocalObjects(tmp_path), shard_format(array.metadata.to_dict())
    key = "a/c/0/0/0/0"
    for positions in (list(np.ndindex(form.grid)), [tuple(n - 1 for n in form.grid)]):
        chunks = read_chunks(objects, key, form, positions)
        assert set(chunks) == set(positions)
        for position, data in chunks.items():
            corner = [p * c for p, c in zip(position, chunk, strict=True)]
            expected = values[tuple(slice(f, f + c) for f, c in zip(corner, chunk, strict=True))]
            found = decode_chunk(form, data, lambda: key)
            np.testing.assert_array_equal(found[tuple(slice(n) for n in expected.shape)], expected)


def test_shards_of_zarr_and_ours_have_the_same_content(tmp_path):
    store = raw_group.new_document((40, 50), 6)
    metadata = arrays_of(store)["raw"]
    metadata["shape"][0] = 1
    (tmp_path / "zarr.json").write_bytes(raw_group.dumped(metadata))
    array = zarr.open_array(tmp_path, mode="r+")
    values = values_of("raw", (4, 40, 50))
    array[0, 3] = values
    form = shard_format(metadata)
    theirs = (tmp_path / "c/0/3/0/0/0").read_bytes()
    ours = encode_shard(form, values[None, None], raw_group.DATA["raw"].fill)
    assert bad_chunks(form, theirs) == []
    assert same_content(form, theirs, ours)
    other = encode_shard(form, (values + 1)[None, None], raw_group.DATA["raw"].fill)
    assert not same_content(form, theirs, other)


def test_chunks_that_a_shard_lacks_are_left_out(tmp_path):
    """zarr leaves chunks of fill values out of its shards."""
    codec = ShardingCodec(chunk_shape=(2, 2), codecs=[PCodec(level=8, mode_spec="classic"), Crc32cCodec()])
    array = zarr.create_array(
        tmp_path / "a",
        shape=(4, 4),
        chunks=(4, 4),
        dtype="int32",
        fill_value=9,
        serializer=codec,
        compressors=None,
        filters=None,
    )
    array[:2, :2] = 5
    form = shard_format(array.metadata.to_dict())
    chunks = read_chunks(LocalObjects(tmp_path), "a/c/0/0", form, [(0, 0), (0, 1), (1, 1)])
    assert list(chunks) == [(0, 0)]
    assert read_chunks(LocalObjects(tmp_path), "a/c/9/9", form, [(0, 0)]) is None
