"""The normal equations of a starflat without its stars, applied rather than made, and their solution."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ztfzarr.kernels.starflat import Layout, gather, predict
from ztfzarr.starflat.measurements import Measurements, by_star
from ztfzarr.starflat.nodes import QUADRANTS, Nodes

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class System:
    """Measurements sorted by star, and where their parameters stand in one vector.

    Parameters
    ----------
    nodes : Nodes
        Of the map.
    order : (measurement,)
        Where the sorted measurements stood.
    star, exposure : (measurement,)
        Indices into ``stars`` and ``exposures``, their sorted labels.
    node, across, along
        See :meth:`Nodes.place`.
    slope, colour : (measurement,)
        X - X_exp; colour minus mean colour, 0 where unknown.
    magnitude, error : (measurement,)
        As measured.
    smoothness : float
        Sigma of the second differences of the map between neighbours of a quadrant, mag; 0 for no prior.
    with_colour : bool
        Whether there is a colour term.
    mean_colour : float
        Which ``colour`` is without, mag; NaN without a colour term.
    """

    nodes: Nodes
    order: NDArray[np.intp]
    star: NDArray[np.int32]
    stars: NDArray[np.int64]
    exposure: NDArray[np.int32]
    exposures: NDArray[np.int64]
    node: NDArray[np.int32]
    across: NDArray[np.float32]
    along: NDArray[np.float32]
    slope: NDArray[np.float32]
    colour: NDArray[np.float32]
    magnitude: Floats
    error: Floats
    smoothness: float
    with_colour: bool
    mean_colour: float

    @property
    def corners(self) -> slice:
        """Where delta-k stands."""
        return slice(self.nodes.total, self.nodes.total + 4 * QUADRANTS * self.with_colour)

    @property
    def zero(self) -> slice:
        """Where the zero points stand."""
        return slice(self.corners.stop, self.corners.stop + self.exposures.size)

    @property
    def size(self) -> int:
        """Count the parameters; the last is k."""
        return int(self.zero.stop) + 1

    @property
    def layout(self) -> Layout:
        """The same for the kernels."""
        return (*self.nodes.count, self.corners.start, self.zero.start)

    @cached_property
    def rcid(self) -> NDArray[np.int16]:
        """Read-out channel of each measurement."""
        return (self.node // (self.nodes.count[0] * self.nodes.count[1])).astype(np.int16)

    def predict(self, parameters: Floats) -> Floats:
        """Return what parameters add to each measurement, without its star."""
        out = np.empty(self.star.size)
        places = self.node, self.across, self.along, self.exposure, self.slope, self.colour
        predict(*places, self.layout, parameters, out)
        return out

    def gather(self, weight: Floats, value: Floats) -> Floats:
        """Return A^T W (value - mean of its star)."""
        sums = np.zeros(self.size)
        places = self.node, self.across, self.along, self.exposure, self.slope, self.colour
        gather(self.star, *places, self.layout, weight, value, sums)
        return sums

    def apply(self, weight: Floats, parameters: Floats) -> Floats:
        """Apply the reduced normal matrix, with the prior on the map's smoothness."""
        return self.gather(weight, self.predict(parameters)) + self._rough(parameters)

    def _rough(self, parameters: Floats) -> Floats:
        result = np.zeros(self.size)
        result[: self.nodes.total] = self.prior @ parameters[: self.nodes.total]
        return result

    @cached_property
    def prior(self) -> sparse.csr_array:
        """Inverse covariance of the map that its smoothness is, (node, node); none across a quadrant's edge."""
        bends = [_second_differences(n) for n in self.nodes.count]
        along, across = (sparse.eye_array(n) for n in self.nodes.count)
        quadrant = sparse.kron(bends[0], across) + sparse.kron(along, bends[1])
        factor = 1 / self.smoothness**2 if self.smoothness > 0 else 0.0
        return sparse.csr_array(factor * sparse.kron(sparse.eye_array(QUADRANTS), quadrant))

    def within_quadrants(self, weight: Floats) -> sparse.csc_array:
        """Return A^T W A of the map alone, (node, node), and its prior: stars and exposures held."""
        n, shares = self.nodes.total, self.nodes.shares(self.node, self.across, self.along)
        total = sparse.csc_array(self.prior)
        for one, share in shares:
            for other, part in shares:
                total = total + sparse.coo_array((weight * share * part, (one, other)), (n, n)).tocsc()
        return total

    def diagonal(self, weight: Floats) -> Floats:
        """Return the diagonal of A^T W A behind the map's."""
        result = np.zeros(self.size)
        if self.with_colour:
            colours = np.bincount(self.rcid, weight * self.colour**2, QUADRANTS)
            result[self.corners] = np.repeat(colours, 4) / 9
        result[self.zero] = np.bincount(self.exposure, weight, self.exposures.size)
        result[-1] = float(weight @ np.square(self.slope, dtype=np.float64))
        return result

    def bearing(self, kept: Mask) -> tuple[Floats, NDArray[np.int64]]:
        """Say how much bears on each node: sums of bilinear weights, and counts of kept measurements."""
        total, count = np.zeros(self.nodes.total), np.zeros(self.nodes.total, np.int64)
        for node, share in self.nodes.shares(self.node, self.across, self.along):
            total += np.bincount(node, share * kept, self.nodes.total)
            count += np.bincount(node[kept & (share > 0)], minlength=self.nodes.total)
        return total, count


def _second_differences(count: int) -> sparse.csr_array:
    """Return D^T D of the second differences of ``count`` values."""
    if count < 3:
        return sparse.csr_array((count, count))
    bend = sparse.diags_array([1.0, -2.0, 1.0], offsets=[0, 1, 2], shape=(count - 2, count))
    return sparse.csr_array(bend.T @ bend)


def new_system(measurements: Measurements, nodes: Nodes, *, smoothness: float = 0.0) -> System:
    """Sort usable measurements, and number their stars, exposures and nodes."""
    order = np.flatnonzero(measurements.usable())
    order = order[by_star(measurements.take(order))]
    m = measurements.take(order)
    stars, star = np.unique(m.star, return_inverse=True)
    exposures, exposure = np.unique(m.exposure, return_inverse=True)
    node, across, along = nodes.place(m.rcid, m.y, m.x)
    colour, mean = _centred(m.colour, star, len(m))
    return System(
        nodes, order, star.astype(np.int32), stars, exposure.astype(np.int32), exposures, node, across, along,
        m.slope.astype(np.float32), colour, m.magnitude, m.error, smoothness, m.colour is not None, mean,
    )  # fmt: skip


def _centred(colour: Floats | None, star: NDArray[np.intp], count: int) -> tuple[NDArray[np.float32], float]:
    """Subtract the mean over stars, and return it; what is not known counts as the mean."""
    if colour is None:
        return np.zeros(count, np.float32), float("nan")
    _, first = np.unique(star, return_index=True)
    known = colour[first][np.isfinite(colour[first])]
    mean = float(known.mean()) if known.size else 0.0
    return np.where(np.isfinite(colour), colour - mean, 0.0).astype(np.float32), mean


@dataclass(frozen=True, eq=False)
class Gauge:
    """What the equations leave open and the fit fixes: parameters that are free, and directions taken out.

    ``free`` (parameter) marks those that are solved for. ``basis`` (direction, parameter) is orthonormal: 1, u and
    v over the nodes that are determined, 1 over the exposures, 1 over the corners of delta-k.
    """

    free: Mask
    basis: Floats

    def project(self, vector: Floats) -> Floats:
        """Return the part of a vector that is free."""
        inside = np.where(self.free, vector, 0.0)
        for direction in self.basis:  # no BLAS: its threads cost more than they give on vectors as short
            inside -= (direction * inside).sum() * direction
        return inside


def new_gauge(system: System, determined: Mask, exposed: Mask, *, fit_extinction: bool = True) -> Gauge:
    """Fix sum(delta) = sum(delta u) = sum(delta v) = 0 over determined nodes, and the mean of the zero points.

    Parameters
    ----------
    system : System
        The equations.
    determined : (node,)
        Nodes to solve for; with none, the zero points alone are.
    exposed : (exposure,)
        Exposures that have measurements.
    fit_extinction : bool
        Whether k is solved for.
    """
    free = np.zeros(system.size, bool)
    free[: system.nodes.total], free[system.zero], free[-1] = determined, exposed, fit_extinction
    free[system.corners] = np.repeat(determined.reshape(QUADRANTS, -1).any(axis=1), 4 * system.with_colour)
    directions = np.zeros((system.size, 5))
    directions[: system.nodes.total, 0] = 1
    directions[: system.nodes.total, 1:3] = np.stack(system.nodes.focal_plane(), axis=-1)
    directions[system.zero, 3] = 1
    directions[system.corners, 4] = 1
    directions *= free[:, np.newaxis]
    used = directions[:, directions.any(axis=0)]
    return Gauge(free, np.ascontiguousarray(np.linalg.qr(used)[0].T))
