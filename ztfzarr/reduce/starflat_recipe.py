"""The recipes by which flats or science of a store take a starflat."""

from __future__ import annotations

from ztfzarr.errors import RecipeError
from ztfzarr.geometry import LED_FILTERS
from ztfzarr.recipe import Recipe, default_recipe, merged
from ztfzarr.reduce.calibrated import recipe_of_science
from ztfzarr.reduce.starflat_map import OFF
from ztfzarr.store.objects import Objects
from ztfzarr.store.products import FILTERS
from ztfzarr.store.versions import existing_version, made


def recipe_with_starflat(objects: Objects, kind: str, version: str) -> Recipe:
    """Return the recipe of the flats or science through which a starflat was measured, with it in it.

    Parameters
    ----------
    objects : Objects
        The store.
    kind : str
        ``flat`` or ``science``. Flats are of the filters that have a map.
    version : str
        Of the starflat.

    Raises
    ------
    RecipeError
        If it was measured through another starflat: then it holds what that one left.
    StoreError
        If the store lacks a version.
    """
    starflat = existing_version(objects, "starflat", version)
    stars = existing_version(objects, "stars", starflat.recipe["starflat"]["stars"])
    science = recipe_of_science(objects, stars.recipe["stars"]["science"])
    flat = existing_version(objects, "flat", science["science"]["flat"]).recipe
    within = {science["science"]["starflat"], flat["flat"]["starflat"]} - {OFF}
    if within:
        raise RecipeError(
            f"{starflat.group} was measured through starflat/{within.pop()}: it holds what that one left"
        )
    recipe = merged(default_recipe(), science if kind == "science" else flat)
    recipe[kind]["starflat"] = version
    if kind == "flat":
        bands = {name for name, there in zip(FILTERS, made(starflat), strict=True) if there}
        without = {*flat["flat"]["without_leds"], *(led for led, name in LED_FILTERS.items() if name not in bands)}
        recipe["flat"]["without_leds"] = sorted(without)
    return recipe
