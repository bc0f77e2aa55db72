"""Names of exported files, as users know them."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Final

from ztfzarr.errors import RefusedError
from ztfzarr.export.frames import Frame
from ztfzarr.store.files import plain_name

TEMPLATES: Final = {
    "science": "ztf_{exposure}_{field:06d}_{filter}_c{ccd:02d}_o_q{quadrant}_sciimg.fits",
    "bias": "ztf_{night}_{field:06d}_{filter}_c{ccd:02d}_b_q{quadrant}_bias.fits",
    "flat": "ztf_{night}_{field:06d}_{filter}_c{ccd:02d}_f_q{quadrant}_flat.fits",
}


def file_name(template: str, frame: Frame, quadrant: int, *, compress: bool) -> str:
    """Fill a template for a quadrant of a frame; ``.fz`` is added to compressed files.

    Raises
    ------
    RefusedError
        If the template has a field that the frame lacks, or leads out of its folder.
    """
    plain_name(str(frame.labels["filter"]), f"filter of {frame.name}")
    fields = {**frame.labels, "ccd": frame.ccd, "quadrant": quadrant, "kind": frame.kind, "version": frame.version}
    try:
        name = template.format_map(fields)
    except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
        known = ", ".join(sorted(fields))
        raise RefusedError(f"name {template!r}: {_said(error)}; expected fields of {known}") from None
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts:
        raise RefusedError(f"name {template!r} gives {name!r}: expected a path below the folder")
    return f"{name.removesuffix('.fz')}.fz" if compress else name


def check_template(template: str, found: list[Frame]) -> None:
    """Raise RefusedError if a template gives two quadrants one name."""
    seen: dict[str, Any] = {}
    for frame in found:
        for quadrant in frame.images["quadrant"].values.tolist():
            name = file_name(template, frame, quadrant, compress=False)
            if name in seen:
                raise RefusedError(
                    f"name {template!r} gives {name} to {seen[name]} and to {frame.name} q{quadrant}: add fields"
                )
            seen[name] = f"{frame.name} q{quadrant}"


def _said(error: Exception) -> str:
    return f"no field {error}" if isinstance(error, KeyError) else str(error)
