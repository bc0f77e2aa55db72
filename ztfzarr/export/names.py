"""Names of exported files, as users know them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from ztfzarr.errors import RefusedError
from ztfzarr.export.frames import Frame
from ztfzarr.export.sheets import Sheet
from ztfzarr.store.files import plain_name

TEMPLATES: Final = {
    "science": "ztf_{exposure}_{field:06d}_{filter}_c{ccd:02d}_o_q{quadrant}_sciimg.fits",
    "bias": "ztf_{night}_{field:06d}_{filter}_c{ccd:02d}_b_q{quadrant}_bias.fits",
    "flat": "ztf_{night}_{field:06d}_{filter}_c{ccd:02d}_f_q{quadrant}_flat.fits",
    "starflat": "ztf_{night}_{field:06d}_{filter}_c{ccd:02d}_f_q{quadrant}_starflat.fits",
    "stars": "ztf_{exposure}_{field:06d}_{filter}_c{ccd:02d}_o_stars.fits",
    "pocket": "ztf_{night}_pocket.fits",
}


def file_name(template: str, item: Frame | Sheet, place: int, *, compress: bool) -> str:
    """Fill a template for a quadrant of a frame, or for a table; ``.fz`` is added to compressed files.

    Raises
    ------
    RefusedError
        If the template has a field that there is not, or leads out of its folder.
    """
    fields = item.fields(place)
    if "filter" in fields:
        plain_name(str(fields["filter"]), f"filter of {item.name}")
    try:
        name = template.format_map(fields)
    except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
        known = ", ".join(sorted(fields))
        raise RefusedError(f"name {template!r}: {_said(error)}; expected fields of {known}") from None
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts:
        raise RefusedError(f"name {template!r} gives {name!r}: expected a path below the folder")
    return f"{name.removesuffix('.fz')}.fz" if compress else name


def check_template(template: str, found: Sequence[Frame | Sheet]) -> None:
    """Raise RefusedError if a template gives two files one name."""
    seen: dict[str, Any] = {}
    for item in found:
        for place in item.places:
            name = file_name(template, item, place, compress=False)
            what = f"{item.name} q{place}" if place else item.name
            if name in seen:
                raise RefusedError(f"name {template!r} gives {name} to {seen[name]} and to {what}: add fields")
            seen[name] = what


def _said(error: Exception) -> str:
    return f"no field {error}" if isinstance(error, KeyError) else str(error)
