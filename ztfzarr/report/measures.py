"""Which numbers judge masters and science, and by which setting of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ztfzarr.recipe import Recipe


@dataclass(frozen=True)
class Measure:
    """A table of numbers: its name, title, unit and format.

    ``setting`` is the threshold in the recipe, as in ``bias.structure``, of |value - about|; ``most`` one that no
    recipe sets. Ratios with the unit % are stored as fractions, also their thresholds.
    """

    table: str
    title: str
    unit: str
    form: str
    setting: str = ""
    about: float = 0.0
    most: float | None = None

    @property
    def factor(self) -> float:
        """By which stored numbers are multiplied."""
        return 100.0 if self.unit == "%" else 1.0

    def limit(self, recipe: Recipe) -> float | None:
        """Return the threshold in the measure's unit; None if there is none."""
        if not self.setting:
            return self.most
        section, name = self.setting.split(".")
        return float(recipe[section][name]) * self.factor


OVERSCAN_STEP: Final = Measure("overscan_step", "overscan's largest step", "DN", ".2f", "overscan.step")
OVERSCAN_RMS: Final = Measure("overscan_rms", "overscan rms", "DN", ".3f")

MEASURES: Final = {
    "bias": (
        Measure("read_noise_ratio", "read noise, measured / header", "", ".3f", "bias.read_noise", 1.0),
        Measure("read_noise", "read noise", "DN", ".3f"),
        Measure("structure", "structure of the master", "DN", ".2f", "bias.structure"),
        Measure("bias_level", "level of the master", "DN", ".2f"),
        Measure("row_range", "range over rows", "DN", ".2f"),
        Measure("column_range", "range over columns", "DN", ".2f"),
        Measure("rejected", "counts rejected", "%", ".3f"),
        Measure("overscan_mean", "overscan level", "DN", ".1f", "overscan.highest"),
        OVERSCAN_RMS,
        OVERSCAN_STEP,
        Measure("overscan_failed", "frames whose overscan failed", "", ".0f", most=0.0),
    ),
    "flat": (
        Measure("scatter", "scatter of pixels", "%", ".2f", "flat.scatter"),
        Measure("rejected", "counts rejected", "%", ".3f", "flat.rejected"),
        Measure("difference", "largest change since the flat before", "%", ".2f"),
        Measure("quadrant_level", "level of the quadrant", "", ".3f"),
        Measure("level", "level of the CCD", "", ".4f"),
    ),
    "gain": (
        Measure("gain", "gain", "e⁻/DN", ".3f"),
        Measure("gain_ratio", "gain, measured / header", "", ".3f"),
    ),
    "sky": (Measure("sky", "sky", "DN", ".1f"), Measure("noise", "noise of a pixel", "DN", ".2f")),
    "science": (OVERSCAN_STEP, OVERSCAN_RMS),
}
