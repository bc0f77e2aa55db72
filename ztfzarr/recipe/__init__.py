"""Recipes: every setting that changes pixels, as plain data that is compared, stored and refused by name."""

from __future__ import annotations

import copy
import datetime
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

import jsonschema

from ztfzarr.errors import RecipeError
from ztfzarr.recipe.wording import said
from ztfzarr.schemas import load

Recipe = dict[str, Any]

# What decides the pixels of each product.
SECTIONS: Final = {
    "bias": ("algorithm", "overscan", "linearity", "bias"),
    "flat": ("algorithm", "overscan", "linearity", "pocket", "flat", "bad_pixels"),
    "science": ("algorithm", "overscan", "linearity", "pocket", "science"),
    "pocket": ("algorithm", "linearity", "pocket", "pocket_fit"),
    "stars": ("algorithm", "stars"),
    "starflat": ("algorithm", "starflat"),
}


def default_recipe(masters: str = "v1") -> Recipe:
    """Return all the settings, with their defaults; ``masters`` is the version of bias and flat to use."""
    recipe = tomllib.loads((files(__package__) / "default.toml").read_text())
    versions = {"flat": {"bias": masters}, "science": {"bias": masters, "flat": masters}}
    return merged(recipe, versions)


def recipe_for(kind: str, recipe: Recipe) -> Recipe:
    """Return the part of a recipe that decides the pixels of a product kind."""
    return {name: copy.deepcopy(recipe[name]) for name in SECTIONS[kind]}


def completed(kind: str, stored: Recipe) -> Recipe:
    """Return a version's recipe with settings that came after it, at their defaults, which change no pixels."""
    own = {name: stored[name] for name in SECTIONS[kind] if name in stored}
    complete = recipe_for(kind, default_recipe())
    for name, section in own.items():
        complete[name] = {**complete[name], **section} if isinstance(section, dict) else section
    return complete | {name: section for name, section in stored.items() if name not in complete}


def read_recipe(
    text: str, settings: Sequence[str] = (), *, masters: str = "v1", base: Recipe | None = None
) -> Recipe:
    """Read a recipe: TOML over the defaults, and single settings over both.

    Parameters
    ----------
    text : str
        TOML with any part of the settings.
    settings : sequence of str
        Such as ``overscan.columns=25:30``, ``bias.skip=0``.
    masters : str
        Version of bias and flat to use where the recipe does not say.
    base : dict, optional
        A whole recipe in the place of the defaults.

    Raises
    ------
    RecipeError
        If the TOML does not parse, or a setting is unknown or of a wrong type or value: naming each.
    """
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"the recipe is no TOML: {error}") from None
    recipe = merged(default_recipe(masters) if base is None else base, _plain(given))
    for setting in settings:
        recipe = merged(recipe, _plain(_parsed(setting)))
    check_recipe(recipe)
    return recipe


def _plain(value: Any) -> Any:
    """Write TOML's own dates as text: a recipe is stored as JSON, and ``from = 2019-10-22`` is as good."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime.date) else value


def _parsed(setting: str) -> Recipe:
    """Parse ``a.b=value``: a TOML value, a range FIRST:STOP, or else a bare word."""
    path, equals, value = setting.partition("=")
    if not equals or not path.strip():
        raise RecipeError(f"{setting!r}: expected section.name=value, as in overscan.columns=25:30")
    first, colon, stop = value.partition(":")
    if colon and first.strip().isdigit() and stop.strip().isdigit():
        value = f"[{first}, {stop}]"
    try:
        return tomllib.loads(f"{path} = {value}")
    except tomllib.TOMLDecodeError:
        pass
    try:
        return tomllib.loads(f'{path} = "{value.strip()}"')
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{setting!r}: {error}") from None


def merged(base: Recipe, over: Mapping[str, Any]) -> Recipe:
    """Return ``base`` with the settings of ``over`` in their places; tables within sections are replaced."""
    result = copy.deepcopy(base)
    for name, value in over.items():
        section = result.get(name)
        result[name] = {**section, **value} if isinstance(section, dict) and isinstance(value, dict) else value
    return result


def check_recipe(recipe: Recipe) -> None:
    """Raise RecipeError, naming each fault, if a recipe is not what the schema says."""
    validator = jsonschema.Draft202012Validator(load("recipe"))
    errors = sorted(validator.iter_errors(recipe), key=lambda error: [str(p) for p in error.absolute_path])
    if errors:
        raise RecipeError("; ".join(line for error in errors for line in said(error)))
    _check_columns(recipe["overscan"])
    tables, days = recipe["linearity"]["tables"], recipe["linearity"]["from"]
    if len(tables) != len(days) or days != sorted(days):
        raise RecipeError(f"linearity.from: {days}, expected one day for each of {tables}, in their order")


def _check_columns(overscan: Recipe) -> None:
    """Raise RecipeError if a range of columns is empty."""
    for name, columns in {"": overscan["columns"], **overscan["columns_of_ccd"]}.items():
        if columns[0] >= columns[1]:
            where = f"columns_of_ccd.{name}" if name else "columns"
            raise RecipeError(f"overscan.{where}: {columns}, expected the first column and, above it, the stop")


def differences(one: Recipe, other: Recipe) -> list[tuple[str, Any, Any]]:
    """List the settings in which two recipes differ, as (name, one's, other's); None where one has none."""
    return list(_differences(one, other, ""))


def _differences(one: Any, other: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted({*one, *other}):
            yield from _differences(one.get(name), other.get(name), f"{path}.{name}" if path else name)
    elif one != other:
        yield path, one, other


def refuse_other(kind: str, version: str, stored: Recipe, asked: Recipe) -> None:
    """Raise RecipeError, naming each difference, if a version has another recipe than what is asked for."""
    found = differences(recipe_for(kind, stored), recipe_for(kind, asked))
    if found:
        lines = ", ".join(f"{name} {_shown(mine)}, you asked {_shown(yours)}" for name, mine, yours in found)
        raise RecipeError(f"{kind}/{version} has {lines}: use another --version")


def _shown(value: Any) -> str:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(v, int) for v in value):
        return f"[{value[0]}, {value[1]})"
    return repr(value)
