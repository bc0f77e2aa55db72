"""Recipe settings as the keywords of the reductions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ztfzarr.geometry import LED_FILTERS
from ztfzarr.recipe import Recipe


def overscan_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the keywords of the overscan steps."""
    section = recipe["overscan"]
    return {name: section[name] for name in ("degree", "clip", "highest", "step")} | {
        "columns": tuple(section["columns"]),
        "columns_of_ccd": {int(ccd): tuple(columns) for ccd, columns in section["columns_of_ccd"].items()},
    }


def epochs(recipe: Recipe) -> dict[str, np.datetime64]:
    """Return the first UTC day of each non-linearity table."""
    section = recipe["linearity"]
    return {name: np.datetime64(day, "us") for name, day in zip(section["tables"], section["from"], strict=True)}


def detrending_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings of the detrending steps that biases go through too."""
    return overscan_settings(recipe) | {"epochs": epochs(recipe)}


def pocket_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the keywords of :func:`~ztfzarr.steps.pocket.pocket_of`."""
    return {"setting": recipe["pocket"]["correct"], "first_day": np.datetime64(recipe["pocket"]["from"], "us")}


def cosmic_ray_settings(recipe: Recipe) -> dict[str, float] | None:
    """Return the settings of the search for cosmic rays; None where the recipe has none."""
    section = recipe["science"]
    if section["cosmic_rays"] == "off":
        return None
    return {name: float(section[name]) for name in ("sigclip", "sigfrac", "objlim")}


def borders(recipe: Recipe, kind: str) -> list[np.datetime64]:
    """Return the days across which ``kind`` takes no masters."""
    if recipe[kind]["across_epochs"]:
        return []
    return [*list(epochs(recipe).values())[1:], np.datetime64(recipe["pocket"]["from"], "us")]


def bias_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the keywords of ``master_bias``."""
    section = recipe["bias"]
    return {name: section[name] for name in ("skip", "minimum", "method", "clip")} | {
        "detrending": detrending_settings(recipe)
    }


def led_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the keywords of ``combined_part`` for the frames of a LED."""
    section = recipe["flat"]
    return {name: section[name] for name in ("method", "clip", "relative")}


def leds_of(recipe: Recipe) -> dict[int, str]:
    """Return the LEDs that flats are made of, and their filters."""
    return {led: name for led, name in LED_FILTERS.items() if led not in recipe["flat"]["without_leds"]}


def led_weights(recipe: Recipe) -> dict[int, float]:
    """Return the weights of LEDs in the flat of their filter."""
    return {int(led): float(weight) for led, weight in recipe["flat"]["weights"].items()}
