"""Recipes: defaults, TOML and single settings over them, refusals that name what is wrong."""

from __future__ import annotations

import inspect
import re
from typing import Any

import jsonschema
import pytest

from ztfzarr.errors import RecipeError
from ztfzarr.geometry import LED_FILTERS, LINEARITY_EPOCHS, POCKET_START
from ztfzarr.masters import mask
from ztfzarr.masters.flat import RELATIVE_NOISE
from ztfzarr.masters.frames import CLIP, METHODS
from ztfzarr.masters.quality import bias_quality, flat_quality
from ztfzarr.masters.selection import MINIMUM, SKIP
from ztfzarr.recipe import check_recipe, default_recipe, differences, read_recipe, recipe_for, refuse_other
from ztfzarr.schemas import load
from ztfzarr.steps import overscan


def test_the_defaults_are_valid_and_those_of_the_code() -> None:
    recipe = default_recipe()
    check_recipe(recipe)
    strip = {"columns": list(overscan.COLUMNS), "degree": overscan.DEGREE, "clip": overscan.CLIP}
    strip |= {"highest": overscan.HIGHEST, "step": overscan.STEP}
    assert recipe["overscan"] == strip | {"columns_of_ccd": {}}
    assert (recipe["bias"]["skip"], recipe["bias"]["minimum"], recipe["bias"]["clip"]) == (SKIP, MINIMUM, CLIP)
    assert recipe["flat"]["relative"] == RELATIVE_NOISE
    assert recipe["linearity"]["tables"] == list(LINEARITY_EPOCHS)
    assert recipe["linearity"]["from"] == [str(day) for day in LINEARITY_EPOCHS.values()]
    assert recipe["pocket"]["from"] == str(POCKET_START)
    assert (recipe["science"]["saturation"], recipe["science"]["suspect"]) == (mask.SATURATION, mask.SUSPECT)
    limits = inspect.signature(mask.bad_pixels).parameters
    assert recipe["bad_pixels"] == {name: p.default for name, p in limits.items() if p.default is not p.empty}
    judged = inspect.signature(bias_quality).parameters
    assert recipe["bias"]["read_noise"] == judged["tolerance"].default
    assert recipe["bias"]["structure"] == judged["structure"].default
    judged = inspect.signature(flat_quality).parameters
    assert recipe["flat"]["scatter"] == judged["scatter"].default
    assert recipe["flat"]["rejected"] == judged["rejection"].default


def test_the_schema_knows_what_the_code_knows() -> None:
    schema = load("recipe")
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$defs"]["method"]["enum"] == list(METHODS)
    leds = schema["properties"]["flat"]["properties"]["without_leds"]["items"]["enum"]
    assert leds == sorted(LED_FILTERS)
    assert all(re.search(schema["$defs"]["led"]["pattern"], str(led)) for led in LED_FILTERS)
    assert not re.search(schema["$defs"]["led"]["pattern"], "6")


SETTINGS = [
    ("overscan.columns=25:30", ("overscan", "columns"), [25, 30]),
    ("overscan.columns=[20, 30]", ("overscan", "columns"), [20, 30]),
    ("overscan.columns_of_ccd={6 = [10, 25]}", ("overscan", "columns_of_ccd"), {"6": [10, 25]}),
    ("bias.skip=0", ("bias", "skip"), 0),
    ("bias.method=median", ("bias", "method"), "median"),
    ("science.variance=true", ("science", "variance"), True),
    ("flat.weights={2 = 0.5}", ("flat", "weights"), {"2": 0.5}),
    ("pocket.from=2021-01-01", ("pocket", "from"), "2021-01-01"),  # a date of TOML's own
    ("pocket.fit=v1", ("pocket", "fit"), "v1"),
]


@pytest.mark.parametrize(("setting", "place", "value"), SETTINGS, ids=[s[0] for s in SETTINGS])
def test_one_setting(setting: str, place: tuple[str, str], value: Any) -> None:
    recipe = read_recipe("", [setting])
    assert recipe[place[0]][place[1]] == value
    assert [name for name, _, _ in differences(default_recipe(), recipe)] != []
    assert all(name.startswith(".".join(place)) for name, _, _ in differences(default_recipe(), recipe))


def test_toml_then_settings() -> None:
    recipe = read_recipe("[overscan]\ncolumns = [20, 30]\ndegree = 2\n[bias]\nskip = 5\n", ["overscan.degree=4"])
    assert recipe["overscan"] == default_recipe()["overscan"] | {"columns": [20, 30], "degree": 4}
    assert recipe["bias"]["skip"] == 5


REFUSED = [
    ("", ["overscan.colums=25:30"], "overscan.colums: no such setting, expected columns"),
    ("", ["overscan.columns=25"], "overscan.columns: 25, expected a list, as"),
    ("", ["bias.method=mean"], "bias.method: 'mean', expected one of 'noise', 'sigma', 'median'"),
    ("", ["flat.without_leds=[6]"], "flat.without_leds.0: 6, expected one of 2, 3"),
    ("", ["overscan.columns=30:25"], "overscan.columns: .* above it"),
    ("", ["overscan.columns_of_ccd={6 = [9, 9]}"], "overscan.columns_of_ccd.6: .* above it"),
    ("[bais]\nskip = 5\n", [], "bais: no such setting, expected bias"),
    ("", ["overscan"], "'overscan': expected section.name=value"),
    ("[overscan\n", [], "the recipe is no TOML: "),
    ("", ["bias.skip=-1", "bias.clip=0"], "bias.clip: .*; bias.skip: "),
]


@pytest.mark.parametrize(("text", "settings", "message"), REFUSED, ids=[r[2] for r in REFUSED])
def test_refused(text: str, settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_recipe(text, settings)


def test_another_recipe_is_refused_naming_each_difference() -> None:
    stored = read_recipe("")
    asked = read_recipe("", ["overscan.columns=25:30", "bias.skip=0"])
    expected = (
        r"bias/v1 has bias.skip 10, you asked 0, overscan.columns \[5, 25\), you asked \[25, 30\): use another"
    )
    with pytest.raises(RecipeError, match=expected):
        refuse_other("bias", "v1", stored, asked)
    refuse_other("flat", "v1", stored, read_recipe("", ["bias.skip=0"]))  # skip does not decide a flat's pixels


def test_a_product_keeps_what_decides_its_pixels() -> None:
    assert set(recipe_for("bias", default_recipe())) == {"algorithm", "overscan", "linearity", "bias"}
    assert "bias" not in recipe_for("science", default_recipe())
