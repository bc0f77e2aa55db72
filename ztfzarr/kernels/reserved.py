"""Integers that mean no number, apart from the compiled loops, which the tables of a store do without."""

from __future__ import annotations

from typing import Final

# Quantised values that CFITSIO (-2147483647) and astropy (-2147483648) write for NaN, the store's own
# absent value (the bits of a float32 NaN), and the value that SUBTRACTIVE_DITHER_2 reserves for 0.0.
NULL_CFITSIO: Final = -2147483647
NULL_ASTROPY: Final = -2147483648
ABSENT: Final = 2143289344
EXACT_ZERO: Final = -2147483646
