"""What the tests compare with: bits of float32, and CFITSIO's own tools."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two float32 arrays are equal bit for bit, all NaN being one."""
    one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
    bits = [np.where(np.isnan(a), np.float32(np.nan), a).view(np.int32) for a in (one, other)]
    return one.shape == other.shape and bool(np.array_equal(*bits))


def fpack(path: Path, *options: str) -> Path:
    """Compress a FITS file with CFITSIO's fpack; returns the .fz beside it."""
    packed = path.with_name(f"{path.name}.fz")
    packed.unlink(missing_ok=True)
    subprocess.run(["fpack", *options, str(path)], check=True, capture_output=True)
    return packed
