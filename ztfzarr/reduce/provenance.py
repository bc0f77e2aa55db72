"""What an entry was made from, written down as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.store.versions import Version


def master_provenance(
    version: Version, used: xr.Dataset, dropped: Mapping[str, str], masters: Mapping[str, str]
) -> str:
    """Write down the exposures of a master, used (with SHA-256) and dropped (with why), and its own masters."""
    hashes = used["source_sha256"].values.ravel().tolist()
    exposures = dict(zip(map(str, used["exposure"].values.tolist()), map(str, hashes), strict=True))
    return _written(version, {"exposures": exposures, "dropped": dict(dropped), "masters": dict(masters)})


def science_provenance(
    version: Version, masters: Mapping[str, str], k: float, offset: NDArray[np.float64] | None = None
) -> str:
    """Write down the masters of an exposure, its CCD's factor, and the offsets that are subtracted, if any, DN."""
    record: dict[str, Any] = {"masters": dict(masters), "k": k}
    if offset is not None:
        record["amplifier_offset"] = [round(o, 4) if np.isfinite(o) else None for o in offset.tolist()]
    return _written(version, record)


def stars_provenance(version: Version, stored: bool, reasons: list[str], catalogue: bool) -> str:
    """Write down whether science was stored, and why quadrants have no WCS, by their number."""
    name = f"science/{version.recipe['stars']['science']}"
    without = {str(i + 1): reason for i, reason in enumerate(reasons) if reason}
    science = name if stored else f"{name}, computed"
    return _written(version, {"science": science, "catalogue": catalogue, "without_wcs": without})


def _written(version: Version, record: Mapping[str, Any]) -> str:
    software = version.document["attributes"]["software"]["ztfzarr"]
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps({**record, "software": software, "made": made})


def published_provenance(version: Version) -> str:
    """Write down that an entry was computed elsewhere and published."""
    return _written(version, {"published": True})


def starflat_provenance(
    version: Version, exposures: NDArray[np.int64], determined: bool, dropped: Sequence[int]
) -> str:
    """Write down the exposures of a starflat, its star tables, where its plane is from, channels left out."""
    stars = f"stars/{version.recipe['starflat']['stars']}"
    plane = "from the catalogue" if determined else "undetermined"
    record = {"exposures": exposures.tolist(), "stars": stars, "plane": plane, "dropped_channels": list(dropped)}
    return _written(version, record)
