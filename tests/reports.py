"""A store whose texts would run if a page did not escape them, for the tests of reports."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.errors import ZarrUserWarning

from ztfzarr.store.objects import LocalObjects
from ztfzarr.store.refused import UNKNOWN, Refused, keep_refused

NIGHT = 20200801
RUN = "window.hacked = 1"
SCRIPT = f"<script>{RUN}</script>"
IMAGE = f'"><img src=x onerror="{RUN}">'
LINK = "' onmouseover='" + RUN + "' x='"
TURNED = "a\u202egnp.\u2066exe\nb\r\x07\udc80"
SHOWN = r"a\u202egnp.\u2066exe\x0ab\x0d\x07\udc80"
MARKUP = "{{ 7 * 7 }} {% raw %} &lt;b&gt; &amp;"
TEXTS = (SCRIPT, IMAGE, LINK, MARKUP)


def put(store: Path, array: str, place: Any, value: Any) -> None:
    """Change a table of a store."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.open_array(store / array, mode="r+", zarr_format=3)[place] = value


def hostile(source: Path, folder: Path) -> Path:
    """Copy a store, and put texts into it wherever a file or another program can."""
    store = Path(shutil.copytree(source, folder / f"night {SCRIPT.replace('/', '')}.zarr"))
    files = [Refused(NIGHT, f"raw/{text}", f"header value {text}: expected a number") for text in (*TEXTS, TURNED)]
    keep_refused(LocalObjects(store), [*files, Refused(UNKNOWN, IMAGE, SCRIPT)])
    record = {
        "exposures": {SCRIPT: IMAGE},
        "dropped": {IMAGE: SCRIPT, "1": LINK},
        "masters": {"bias": IMAGE},
        "software": SCRIPT,
        "made": TURNED.encode("ascii", "ignore").decode(),
    }
    put(store, "bias/v1/provenance", (0, 1), json.dumps(record))
    put(store, "bias/v1/provenance", (0, 10), SCRIPT)
    numbers = zarr.open_array(store / "raw/imgtype", zarr_format=3)[...]
    last = int(np.flatnonzero(numbers == "bias")[0])
    put(store, "raw/imgtype", last, SCRIPT)
    put(store, "raw/filter", last, IMAGE)
    evil_version(store)
    return store


def evil_version(store: Path) -> None:
    """Give bias v2 a name, settings and software that are markup."""
    folder = store / "bias" / "v2"
    document = json.loads((folder / "zarr.json").read_text())
    document["attributes"]["software"] = {SCRIPT: IMAGE}
    document["attributes"]["recipe"]["overscan"][LINK] = IMAGE
    (folder / "zarr.json").write_text(json.dumps(document))
    folder.rename(store / "bias" / IMAGE)
