"""The xarray engine: ``xr.open_dataset("night.zarr", engine="ztfzarr")``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import xarray as xr
from xarray.backends import BackendEntrypoint

from ztfzarr.store.cube import open_cube


class CubeBackend(BackendEntrypoint):
    """Opens the raw exposures of a store in DN, as :func:`ztfzarr.open_cube` does."""

    description = "Raw exposures of a ztfzarr store, decoded to DN"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "storage_options")

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[Any],
        *,
        drop_variables: str | Iterable[str] | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> xr.Dataset:
        """Open a store by its path or URL."""
        dropped = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        return open_cube(filename_or_obj, storage_options=storage_options).drop_vars(dropped)

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Never guess: plain Zarr readers must get the store's own integers."""
        return False
