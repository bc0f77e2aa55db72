"""WCS from files beside the store: IPAC's science images, or their headers as text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from astropy.io import fits

from ztfzarr.errors import RefusedError

Key = tuple[int, int, int]

# ztf_20200924431759_000655_zr_c13_o_q3_sciimg.fits, also .fits.fz, .hdr, .txt
NAME: Final = re.compile(r"ztf_(\d{14})_\d{6}_z[gri]_c(\d\d)_o_q([1-4])_.*\.(fits|fits\.fz|fits\.gz|hdr|txt)$")


def read_wcs_files(paths: Sequence[str]) -> dict[Key, str]:
    """Read the headers of science images.

    Parameters
    ----------
    paths : sequence of str
        Files named as IPAC names them, or folders of such: FITS images, or their headers as text, one card a line
        or in blocks.

    Returns
    -------
    dict
        By exposure, CCD and quadrant: cards, one a line.

    Raises
    ------
    RefusedError
        If a file has another name, cannot be read, or has no WCS.
    """
    return {_key(path): _cards(path) for path in _files(paths)}


def _files(paths: Sequence[str]) -> Iterator[Path]:
    for path in map(Path, paths):
        if path.is_dir():
            yield from (found for found in sorted(path.rglob("*")) if NAME.search(found.name))
        else:
            yield path


def _key(path: Path) -> Key:
    match = NAME.search(path.name)
    if match is None:
        raise RefusedError(f"{path}: expected a name such as ztf_20200924431759_000655_zr_c13_o_q3_sciimg.fits")
    return int(match[1]), int(match[2]), int(match[3])


def _cards(path: Path) -> str:
    try:
        headers = [_from_text(path)] if path.suffix in (".hdr", ".txt") else _from_fits(path)
    except (OSError, ValueError) as error:
        raise RefusedError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    for header in headers:
        if "CTYPE1" in header:
            return str(header.tostring(sep="\n", endcard=False, padding=False))
    raise RefusedError(f"{path}: its header has no WCS; expected CTYPE1")


def _from_fits(path: Path) -> list[fits.Header]:
    with fits.open(path) as hdus:
        return [hdu.header.copy(strip=True) for hdu in hdus]


def _from_text(path: Path) -> fits.Header:
    text = path.read_text("ascii")
    return fits.Header.fromstring(text, sep="\n" if "\n" in text else "")
