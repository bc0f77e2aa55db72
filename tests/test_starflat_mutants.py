"""Subtly wrong starflats, each of which a named test must catch: that the tests can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import starfields
import test_starflat as tests

from ztfzarr.starflat import fit, plane
from ztfzarr.starflat.system import Gauge


class Mutant(NamedTuple):
    name: str
    module: Any
    attribute: str
    wrong: Callable[[Any], Any]
    check: Callable[[], None]
    refit: bool = True  # false of what acts on a fit that is made


def without_gauge(right: Any) -> Any:
    def wrong(*args: Any, **options: Any) -> Gauge:
        gauge = right(*args, **options)
        return replace(gauge, basis=gauge.basis[:0])

    return wrong


def constant_only(right: Any) -> Any:
    def wrong(*args: Any, **options: Any) -> Gauge:
        gauge = right(*args, **options)
        return replace(gauge, basis=gauge.basis[[0, *range(3, len(gauge.basis))]])

    return wrong


def no_airmass(right: Any) -> Any:
    return lambda measurements, *args, **options: right(
        replace(measurements, slope=np.zeros(len(measurements))), *args, **options
    )


def no_floor(right: Any) -> Any:
    return lambda measurements, shape, settings: right(measurements, shape, replace(settings, floor=1e-9))


def extrapolated(_right: Any) -> Any:
    def wrong(system: Any, kept: Any, _minimum: float) -> Any:
        seen = system.bearing(kept)[0].reshape(64, -1).any(axis=1)
        return np.repeat(seen, system.nodes.total // 64), kept

    return wrong


def never_rejected(_right: Any) -> Any:
    return lambda fit, _inverse: np.ones(fit.weight.size, bool)


def swapped_slopes(right: Any) -> Any:
    return lambda fit: [right(fit)[i] for i in (1, 0, 2)]


def other_sign(right: Any) -> Any:
    return lambda fit, amounts, taken: right(fit, -amounts, taken)


def half_as_large(right: Any) -> Any:
    def wrong(*args: Any) -> Any:
        found = right(*args)
        return replace(found, delta=found.delta / 2, delta_formal=found.delta_formal / 2)

    return wrong


def loose(right: Any) -> Any:
    return lambda *args, **options: right(*args, **(options | {"tolerance": 0.2}))


recovered = tests.test_the_map_is_recovered_but_for_constant_and_plane
nodes_missing = tests.test_nodes_without_stars_are_nan_with_count_0_and_never_extrapolated
outliers = tests.test_outliers_are_rejected_and_good_measurements_kept
errors_hold = tests.test_errors_by_jackknife_and_by_the_noise_model_hold
gauge_holds = tests.test_the_gauge_holds_at_the_nodes
plane_fixed = tests.test_a_catalogue_fixes_the_plane

MUTANTS = [
    Mutant("gauge dropped", fit, "new_gauge", without_gauge, gauge_holds),
    Mutant("planes not fixed", fit, "new_gauge", constant_only, gauge_holds),
    Mutant("airmass left out", starfields, "fit_starflat", no_airmass, recovered),
    Mutant("floor left out", starfields, "fit_starflat", no_floor, recovered),
    Mutant("nodes extrapolated", fit, "determined", extrapolated, nodes_missing),
    Mutant("outliers kept", fit, "_inlying", never_rejected, outliers),
    Mutant("u and v swapped", plane, "_directions", swapped_slopes, plane_fixed, refit=False),
    Mutant("sign of the plane", plane, "_tilted", other_sign, plane_fixed, refit=False),
    Mutant("errors halved", tests, "errors", half_as_large, errors_hold, refit=False),
    Mutant("solved too loosely", fit, "solve", loose, recovered),
]  # fmt: skip


@pytest.mark.parametrize("mutant", [pytest.param(m, id=m.name) for m in MUTANTS])
def test_a_wrong_starflat_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch):
    mutant.check()
    monkeypatch.setattr(mutant.module, mutant.attribute, mutant.wrong(getattr(mutant.module, mutant.attribute)))
    clear = starfields.fitted.cache_clear if mutant.refit else lambda: None
    clear()
    try:
        with pytest.raises(AssertionError):
            mutant.check()
    finally:
        clear()
