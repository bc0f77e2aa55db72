"""Recipe settings as the keywords of the reductions."""

from __future__ import annotations

from typing import Any

from ztfzarr.geometry import LED_FILTERS
from ztfzarr.recipe import Recipe


def overscan_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the keywords of the overscan steps."""
    section = recipe["overscan"]
    return {
        "columns": tuple(section["columns"]),
        "columns_of_ccd": {int(ccd): tuple(columns) for ccd, columns in section["columns_of_ccd"].items()},
        "degree": section["degree"],
        "clip": section["clip"],
    }


def bias_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the keywords of ``master_bias``."""
    section = recipe["bias"]
    return {name: section[name] for name in ("skip", "minimum", "method", "clip")} | {
        "overscan": overscan_settings(recipe)
    }


def flat_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the keywords of ``master_flat``."""
    section = recipe["flat"]
    return {name: section[name] for name in ("minimum", "method", "clip", "relative")} | {
        "weights": {int(led): float(weight) for led, weight in section["weights"].items()},
        "leds": {led: name for led, name in LED_FILTERS.items() if led not in section["without_leds"]},
        "overscan": overscan_settings(recipe),
    }
