"""The same Dataset straight from raw files: to try a step, and what ``ingest`` must equal."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.core import indexing

from ztfzarr.errors import RefusedError
from ztfzarr.geometry import CCDS, QUADRANTS
from ztfzarr.ingest.hdus import Hdu, check_sums, file_bytes, read_hdus
from ztfzarr.ingest.images import read_images
from ztfzarr.ingest.scan import RawFile, file_shape, scan
from ztfzarr.ingest.sources import Source, find_sources
from ztfzarr.kernels.dither import RANDOM, decode_rows
from ztfzarr.store.lazy import Indices, LazyArray
from ztfzarr.store.raw import COORDINATES, DATA, LABELS, label_values

CACHED_FILES: Final = 4  # read whole and kept while their quadrants are asked for one by one


def open_fits(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    storage_options: Mapping[str, str] | None = None,
) -> xr.Dataset:
    """Open raw FITS files as the Dataset that :func:`ztfzarr.open_cube` gives of a store.

    Parameters
    ----------
    paths : path, glob or URL, or a sequence of them
        Raw files and folders of them, of one shape, one file an exposure and CCD.
    storage_options : mapping of str, optional
        Credentials and settings for URLs of object stores, by obstore's names; default the environment's.

    Returns
    -------
    Dataset
        As :func:`ztfzarr.open_cube`: ``raw`` and ``overscan`` in DN, lazily indexed, sorted by time; but
        without the hashes of the files. Headers are read now, pixels, with their checksums, when they are
        asked for.

    Raises
    ------
    RefusedError
        If any file is refused: the first of them, with the reason.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    sources, refused = find_sources([os.fspath(p) for p in several], storage_options)
    for path, reason in refused:
        raise RefusedError(f"{path}: {reason}")
    if not sources:
        raise RefusedError("no raw files: expected names in .fits or .fits.fz")
    return _dataset([_scanned(source) for source in sources])


def _scanned(source: Source) -> RawFile:
    with _named(source):
        return scan(source)


@contextmanager
def _named(source: Source) -> Iterator[None]:
    """Name the file in refusals."""
    try:
        yield
    except RefusedError as error:
        raise RefusedError(f"{source.label}: {error}") from None


def _dataset(files: Sequence[RawFile]) -> xr.Dataset:
    by_key = {file.key: file for file in files}
    if len(by_key) < len(files):
        raise RefusedError("two files of one exposure and CCD: expected one of each")
    if len({file.shape for file in files}) > 1:
        raise RefusedError(f"files of several shapes: {sorted({file.shape for file in files})}")
    first = {file.name.exposure: file for file in reversed(files)}
    exposures = sorted(first, key=lambda number: (first[number].coordinates["time"], number))
    rows = {number: row for row, number in enumerate(exposures)}
    dataset = xr.Dataset(attrs={"title": "ZTF raw exposures"})
    dataset = dataset.assign_coords(_coordinates([first[number] for number in exposures]))
    dataset = dataset.assign_coords(_labels(*files[0].shape))
    table: dict[tuple[int, int], RawFile] = {(rows[e], ccd): f for (e, ccd), f in by_key.items()}
    for name, columns, image in (("raw", files[0].shape[1], 0), ("overscan", files[0].shape[2], 4)):
        shape = (len(exposures), len(CCDS), len(QUADRANTS), files[0].shape[0], columns)
        data = indexing.LazilyIndexedArray(FitsArray(table, shape, image))
        attributes = {"long_name": DATA[name].long_name.split(" as ")[0], "units": "DN"}
        dataset[name] = xr.Variable(DATA[name].dims, data, attributes)
    for name, variable in _file_tables(table, len(exposures)).items():
        dataset[name] = variable
    return dataset


def _coordinates(files: Sequence[RawFile]) -> dict[str, xr.Variable]:
    """Return the coordinates along time, one file an exposure."""
    result = {}
    for name, variable in COORDINATES.items():
        values = [f.name.exposure if name == "exposure" else f.coordinates[name] for f in files]
        dtype: Any = np.dtypes.StringDType() if variable.dtype == "str" else variable.dtype
        result[name] = xr.Variable(variable.dims, np.array(values, dtype), variable.attributes)
    microseconds = result["time"].values.astype("datetime64[us]")
    description = {"long_name": COORDINATES["time"].long_name}
    return result | {"time": xr.Variable(("time",), microseconds.astype("datetime64[ns]"), description)}


def _labels(ny: int, nx: int, overscan: int) -> dict[str, xr.Variable]:
    """Return the coordinates that no exposure changes."""
    values = label_values(ny, nx, overscan)
    shown = {name: LABELS[name] for name in ("ccd", "quadrant", "rcid", "y", "x", "x_overscan")}
    return {n: xr.Variable(v.dims, values[n].astype(v.dtype), v.attributes) for n, v in shown.items()}


def _file_tables(table: dict[tuple[int, int], RawFile], rows: int) -> dict[str, xr.Variable]:
    """Return the variables that have one value a file or a quadrant."""
    values: dict[str, NDArray[Any]] = {}
    for name in ("present", "gain", "read_noise", "source_name", "source_size"):
        variable = DATA[name]
        shape = (rows, len(CCDS), len(QUADRANTS))[: len(variable.dims)]
        dtype: Any = np.dtypes.StringDType() if variable.dtype == "str" else variable.dtype
        values[name] = np.full(shape, variable.fill, dtype)
    for (row, ccd), file in table.items():
        place = row, ccd - 1
        values["present"][place] = 1
        values["gain"][place], values["read_noise"][place] = file.gain, file.read_noise
        values["source_name"][place], values["source_size"][place] = file.source.name, file.size
    return {name: xr.Variable(DATA[name].dims, v, DATA[name].attributes) for name, v in values.items()}


def _images(file: RawFile, indices: Sequence[int]) -> list[NDArray[np.float32]]:
    """Read and decode images of a file; ``indices`` are their extensions."""
    with _named(file.source):
        content, hdus = _read(file.source, file.source.stamp())
        if (len(content), file_shape(hdus)) != (file.size, file.shape):
            raise RefusedError("changed since its headers were read")
        images = read_images([hdus[i] for i in indices], memoryview(content))
    for image in images:
        decode_rows(image.integers, image.zscale, image.zzero, image.zdither, 0, 0, RANDOM)
    return [image.integers.view(np.float32) for image in images]


@lru_cache(CACHED_FILES)
def _read(source: Source, stamp: tuple[int, ...]) -> tuple[bytes, list[Hdu]]:
    """Read a file whole and check it; ``stamp`` tells a file from another of its name."""
    content = source.read()
    hdus = read_hdus(file_bytes(content), len(content))
    for hdu in hdus:
        check_sums(hdu, memoryview(content))
    return content, hdus


class FitsArray(LazyArray):
    """Quadrants or overscans of raw files, read when they are indexed."""

    def __init__(self, files: dict[tuple[int, int], RawFile], shape: tuple[int, ...], first_image: int) -> None:
        super().__init__(shape)
        self.files = files
        self.first_image = first_image

    def read_into(self, values: NDArray[np.float32], picked: list[Indices]) -> None:
        """Read file after file."""
        time, ccd, quadrant, y, x = picked
        extensions, which = np.unique(quadrant + self.first_image + 1, return_inverse=True)
        values[...] = np.nan
        for place in np.ndindex(values.shape[:2]):
            file = self.files.get((int(time[place[0]]), int(ccd[place[1]]) + 1))
            if file is not None:
                images = _images(file, extensions.tolist())
                for i, image in enumerate(which.tolist()):
                    values[(*place, i)] = images[image][np.ix_(y, x)]
