"""What the parts of the model share: named random streams, and quantities with dimensions and units."""

from __future__ import annotations

from typing import NamedTuple, get_type_hints

import numpy as np


def stream(seed: int, purpose: str, *key: int) -> np.random.Generator:
    """Start the random numbers of one purpose: any of them can be drawn alone, in any order or process."""
    return np.random.default_rng([seed, int.from_bytes(purpose.encode()), *key])


class Quantity(NamedTuple):
    """What the saved truth says of a field of a dataclass: its ``Annotated`` type carries it."""

    dims: str  # separated by spaces
    units: str  # "1" for ratios
    long_name: str

    @property
    def attrs(self) -> dict[str, str]:
        """Units and long name, as attributes of an array."""
        return {"units": self.units, "long_name": self.long_name}


def quantities(owner: type) -> dict[str, Quantity]:
    """Return the quantities among the fields of a class, by name."""
    hints = get_type_hints(owner, include_extras=True)
    notes = {name: getattr(hint, "__metadata__", (None,))[0] for name, hint in hints.items()}
    return {name: note for name, note in notes.items() if isinstance(note, Quantity)}
