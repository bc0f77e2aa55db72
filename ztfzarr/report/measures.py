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
    "offset": (Measure("amplifier_offset", "offset of an amplifier, subtracted", "DN", ".2f"),),
    "stars": (Measure("stars", "stars of a quadrant", "", ".0f"), Measure("fwhm", "fwhm", "pixels", ".2f")),
    "wcs": (Measure("wcs_rms", "WCS, rms of a coordinate", "pixels", ".3f"),),
    "pocket": (
        Measure("flat_ratio", "trails after flats / table's", "", ".3f", "pocket_fit.change", 1.0),
        Measure("sky_ratio", "trails after the sky / table's", "", ".3f", "pocket_fit.change", 1.0),
        Measure("chi2", "χ² of the fit, per degree of freedom", "", ".2f", "pocket_fit.chi2"),
        Measure("flat_trail", "charge trailing after flats", "DN", ".1f"),
        Measure("sky_trail", "charge trailing after the sky", "DN", ".2f"),
    ),
}

# Numbers of a starflat: no recipe judges them. A χ² within a fifth of 1 says that errors and model hold.
STARFLAT: Final = (
    Measure("chi2", "χ²/ν of the fit", "", ".3f", about=1.0, most=0.2),
    Measure("half_sample", "χ²/ν of even exposures by the map of the odd", "", ".3f", about=1.0, most=0.2),
    Measure("bright_faint", "χ² a node, bright minus faint stars", "", ".2f", about=1.0, most=1.0),
    Measure("rejected", "measurements rejected", "%", ".2f", most=10.0),
)
REPEATABILITY: Final = Measure("", "repeatability of bright stars / expected", "", ".2f", most=1.2)
RADIUS: Final = Measure("radius_difference", "map of another aperture, rms difference", "mmag", ".2f", most=1.0)
