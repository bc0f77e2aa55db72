"""The survey in numbers: that docs/scale.md is what its script prints, and that the sums are sums."""

from __future__ import annotations

import sys

import pytest
from stores import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import scale


def test_the_document_is_what_the_script_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["scale.py"])
    scale.main()
    document = (ROOT / "docs/scale.md").read_text()
    for table in capsys.readouterr().out.strip().split("\n\n"):
        assert table in document


def test_sums() -> None:
    whole = scale.Survey(scale.Assumptions(), 1.0)
    assert whole.files == 16e6
    assert whole.float_bytes == pytest.approx(16e6 * 4 * 3080 * 3102 * 4)
    assert whole.raw_bytes / whole.float_bytes == pytest.approx(4.72 / 32)
    assert whole.raw_objects == pytest.approx(65e6)
    year = scale.Survey(scale.Assumptions(), 1 / 8)
    assert year.science_bytes * 8 == pytest.approx(whole.science_bytes)
    assert year.reduce_seconds["science"] == pytest.approx((2e6 - 300 * 75 * 16) * 2.3)


def test_assumptions_are_set() -> None:
    free = scale.Survey(scale.with_settings(["store_price=0", "exposures=2e6"]), 1.0)
    assert free.files == 32e6
    costs = dict(scale.requests(free))
    assert costs["cost of storage, a month at this size"] == "0"
    with pytest.raises(TypeError, match="no_such"):
        scale.with_settings(["no_such=1"])
