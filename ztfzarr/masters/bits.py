"""The bits of masks, ours and IPAC's; apart from the kernels, which listing a store does without."""

from __future__ import annotations

from typing import Final

# IPAC's bits, as BIT00-BIT12 of its mask images say; BIT13-15 are reserved there.
IPAC: Final = {
    "track": 0,  # AIRCRAFT/SATELLITE TRACK
    "source": 1,  # CONTAINS SEXTRACTOR DETECTION
    "low_response": 2,  # LOW RESPONSIVITY
    "high_response": 3,  # HIGH RESPONSIVITY
    "noisy": 4,  # NOISY
    "ghost": 5,  # GHOST FROM BRIGHT SOURCE
    "spillage": 6,  # POSSIBLE GHOST FROM CHARGE SPILLAGE
    "spike": 7,  # PIXEL SPIKE (POSSIBLE RAD HIT)
    "saturated": 8,  # SATURATED
    "dead": 9,  # DEAD (UNRESPONSIVE)
    "nan": 10,  # NAN (not a number)
    "psf_source": 11,  # CONTAINS PSF-EXTRACTED SOURCE POSITION
    "halo": 12,  # HALO FROM BRIGHT SOURCE
}

# The bits of our masks. Those of IPAC's names are IPAC's; a cosmic-ray candidate is a spike. Of ours, hot stands
# in the place of halo, which we never set: who rejects IPAC's bad pixels (6141: all but the sources) rejects it.
BITS: Final = {name: IPAC[name] for name in ("low_response", "high_response", "noisy", "spike", "saturated")} | {
    "dead": IPAC["dead"],
    "nan": IPAC["nan"],
    "hot": 12,
    "suspect": 13,
    "no_data": 14,
    "no_calibration": 15,
}
MASKS: Final = {name: 1 << bit for name, bit in BITS.items()}

# What our own bits become in a mask of IPAC's; suspect has no equal there.
TO_IPAC: Final = {"hot": "noisy", "no_data": "nan", "no_calibration": "nan", "suspect": None}
