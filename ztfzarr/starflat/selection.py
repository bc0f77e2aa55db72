"""Which measurements, quadrants and nodes a starflat is made of."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from ztfzarr.kernels.starflat import star_medians
from ztfzarr.starflat.nodes import QUADRANTS
from ztfzarr.starflat.system import System

Mask = NDArray[np.bool_]

COARSE: Final = 0.15  # mag: what is within it of its star's median may be illumination rather than an outlier
PASSES: Final = 10  # of medians of stars and of exposures in turn; they settle to 1 mmag in five
FEWEST: Final = 2  # measurements of a star: one says nothing


def levelled(system: System) -> NDArray[np.float64]:
    """Return magnitudes less zero points, by least squares with stars, each measurement alike.

    Outliers pull them; but whatever an exposure is shifted by, the same is left, so that rejection begins alike.
    """
    shape = system.stars.size, system.exposures.size
    seen = sparse.csr_array((np.ones(system.star.size), (system.star, system.exposure)), shape)
    times = np.maximum(np.bincount(system.star, minlength=shape[0]), 1)
    means = np.bincount(system.star, system.magnitude, shape[0]) / times
    right = np.bincount(system.exposure, system.magnitude - means[system.star], shape[1])
    shared = (seen.T @ sparse.diags_array(1 / times) @ seen).toarray()
    normal = np.diag(np.bincount(system.exposure, minlength=shape[1])) - shared
    return np.asarray(system.magnitude - np.linalg.lstsq(normal, right)[0][system.exposure])


def near_median(system: System) -> Mask:
    """Say which measurements are, but for zero points, near the median of their star: where rejection begins."""
    value, kept = levelled(system), np.ones(system.star.size, bool)
    middle = np.empty_like(value)
    order = np.argsort(system.exposure, kind="stable")
    for _ in range(PASSES):
        star_medians(system.star, kept, value, middle)
        off, shift = value - middle, np.empty_like(value)
        sorted_shift = np.empty_like(value)
        star_medians(system.exposure[order], kept[order], off[order], sorted_shift)
        shift[order] = sorted_shift
        value -= shift
    return np.abs(value - middle) < np.hypot(COARSE, 5 * system.error)


def linked(system: System, kept: Mask) -> tuple[Mask, set[int]]:
    """Leave out stars seen once, and the quadrants that no star links to most of the others."""
    times = np.bincount(system.star[kept], minlength=system.stars.size)
    kept = kept & (times[system.star] >= FEWEST)
    if not kept.any():
        raise ValueError("no star has two measurements: expected dithered exposures whose stars are matched")
    pairs = np.unique(system.star[kept].astype(np.int64) * QUADRANTS + system.rcid[kept])
    star, rcid = pairs // QUADRANTS, pairs % QUADRANTS
    size = QUADRANTS + system.stars.size
    graph = sparse.coo_array((np.ones(pairs.size, np.int8), (rcid, QUADRANTS + star)), (size, size))
    part = csgraph.connected_components(graph, directed=False)[1]
    main = np.bincount(part[system.rcid[kept]]).argmax()
    lost = np.unique(system.rcid[kept & (part[system.rcid] != main)])
    return kept & (part[system.rcid] == main), set(lost.tolist())


def determined(system: System, kept: Mask, minimum: float) -> tuple[Mask, Mask]:
    """Find the nodes that enough bears on, and leave out measurements beside others."""
    while True:
        nodes = system.bearing(kept)[0] >= minimum
        beside = kept.copy()
        for node, share in system.nodes.shares(system.node, system.across, system.along):
            beside &= nodes[node] | (share <= 0)
        if np.array_equal(beside, kept):
            return nodes, kept
        kept = beside
