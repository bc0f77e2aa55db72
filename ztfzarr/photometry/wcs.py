"""Where the pixels of a quadrant look: by the WCS of a header, or by a fit to a catalogue."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.spatial import cKDTree

from ztfzarr.sky import edge_distance, from_tangent_plane, pixels_of, plane_of_pixels, stored_pixels, tangent_plane

Floats = NDArray[np.float64]

REACH: Final = 6 / 60  # degrees: twice what the first guess is off by
BIN: Final = 10 / 3600  # degrees: a rotation of 0.2 degrees moves the edges of a quadrant by 5.4"
BRIGHTEST: Final = 500  # stars that vote
LEAST_STARS: Final = 10
SIGNIFICANT: Final = 6.0  # sigma of the votes that chance gives
ROUNDS: Final = 12
CLIP: Final = 4.0
CLOSEST: Final = 0.5  # pixels: a match radius below which no fit needs to go
MAD_TO_SIGMA: Final = 1.4826


class Sky(Protocol):
    """Something that knows where pixels look, and how well."""

    @property
    def rms(self) -> float:
        """Of a coordinate, pixels."""

    @property
    def stars(self) -> int:
        """How many tell."""

    def world(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return right ascension and declination, degrees, of stored, 0-based pixels."""


@dataclass(frozen=True)
class HeaderSky:
    """The WCS of a header."""

    wcs: WCS
    rms: float = float("nan")
    stars: int = 0

    def world(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return right ascension and declination, degrees."""
        ra, dec = self.wcs.all_pix2world(x, y, 0)
        return np.asarray(ra), np.asarray(dec)


@dataclass(frozen=True, eq=False)
class FittedSky:
    """Polynomials of the pixels in the plane that touches the sky at the pointing, degrees."""

    pointing: tuple[float, float]
    shape: tuple[int, int]
    coefficients: Floats  # (term, 2)
    rms: float
    stars: int

    def world(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return right ascension and declination, degrees."""
        xi, eta = (_terms(x, y, self.shape)[:, : len(self.coefficients)] @ self.coefficients).T
        return from_tangent_plane(xi, eta, *self.pointing)


def header_sky(blocks: bytes | str) -> HeaderSky | None:
    """Return the WCS that the blocks or the text of a header hold; None if they hold none."""
    text = blocks.decode("ascii", "replace") if isinstance(blocks, bytes) else blocks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd cards of real headers
        header = fits.Header.fromstring(text, sep="\n" if "\n" in text else "").copy(strip=True)
        if "CTYPE1" not in header:
            return None
        warnings.simplefilter("ignore", FITSFixedWarning)
        return HeaderSky(WCS(header))


def fit_sky(
    x: Floats,
    y: Floats,
    flux: Floats,
    catalogue: tuple[Floats, Floats, Floats],
    pointing: tuple[float, float],
    rcid: int,
    shape: tuple[int, int],
) -> FittedSky:
    """Fit where a quadrant looks, from the pointing and the corner table as a first guess.

    Parameters
    ----------
    x, y, flux : (star,)
        Stars of the quadrant.
    catalogue : three of (entry,)
        Right ascension, declination (degrees), magnitude; without magnitudes NaN.
    pointing : (float, float)
        Degrees, by the header.
    rcid : int
        Read-out channel.
    shape : (int, int)
        Rows, columns of the quadrant.

    Returns
    -------
    FittedSky

    Raises
    ------
    ValueError
        If the stars do not match: how many votes the best offset has, and how many chance gives.

    Notes
    -----
    The offsets between all bright stars and entries within 6' vote; pairs at the best one then give an affine
    map, whose matches are sharper, and at last one of second degree, until none changes; what is 4 sigma off
    is left out.
    """
    place, truth = _in_plane(x, y, catalogue, pointing, rcid, shape)
    order = np.argsort(-flux, kind="stable")
    offset = _best_offset(place[order], truth, pixels_of(1.0, shape))
    return _refined(x, y, place + offset, truth, pointing, shape)


def _in_plane(
    x: Floats, y: Floats, catalogue: tuple[Floats, Floats, Floats], pointing: tuple[float, float], rcid: int,
    shape: tuple[int, int],
) -> tuple[Floats, Floats]:  # fmt: skip
    """Return stars and the entries about the quadrant in the tangent plane, degrees, (n, 2), brightest first."""
    place = np.column_stack(plane_of_pixels(rcid, x, y, shape))
    ra, dec, magnitude = catalogue
    truth = np.column_stack(tangent_plane(ra, dec, *pointing))
    with np.errstate(invalid="ignore"):
        inside = edge_distance(*stored_pixels(rcid, truth[:, 0], truth[:, 1], shape), shape) > -pixels_of(
            REACH, shape
        )
    truth, magnitude = truth[inside], magnitude[inside]
    return place, truth[np.argsort(magnitude, kind="stable")]


def _best_offset(place: Floats, truth: Floats, scale: float) -> Floats:
    """Return the offset, degrees, that most pairs of bright stars and entries have; ``scale`` pixels a degree."""
    count = min(len(place), BRIGHTEST)
    share = min(len(truth), 2 * count)
    if min(count, share) < LEAST_STARS:
        raise ValueError(f"{count} stars and {share} entries of the catalogue: expected {LEAST_STARS} of each")
    few, some = cKDTree(place[:count]), truth[:share]
    pairs = [(i, j) for i, found in enumerate(few.query_ball_point(some, REACH)) for j in found]
    if not pairs:
        raise ValueError("no entry of the catalogue within 6' of a star")
    index = np.array(pairs)
    apart = some[index[:, 0]] - place[index[:, 1]]
    size = max(BIN, 3 / scale)
    bins = int(2 * REACH / size)
    votes, edges, _ = np.histogram2d(apart[:, 0], apart[:, 1], bins=bins, range=[[-REACH, REACH]] * 2)
    near = 9 * uniform_filter(votes, 3, mode="constant")  # pairs rarely fall into one bin
    chance = max(9 * len(pairs) / (np.pi / 4 * bins**2), 0.5)
    best = np.unravel_index(np.argmax(near), near.shape)
    if near[best] < LEAST_STARS / 2 or near[best] - chance < SIGNIFICANT * np.sqrt(chance):
        raise ValueError(f"no offset matches the catalogue: {near[best]:.0f} pairs, {chance:.0f} by chance")
    centre = np.array([(edges[i] + edges[i + 1]) / 2 for i in best])
    close = np.abs(apart - centre).max(axis=1) < 1.5 * size
    return np.asarray(np.median(apart[close], axis=0))


def _refined(
    x: Floats, y: Floats, place: Floats, truth: Floats, pointing: tuple[float, float], shape: tuple[int, int]
) -> FittedSky:
    """Fit, match again, fit again; the radius follows the residuals."""
    terms, tree, pixel = _terms(x, y, shape), cKDTree(truth), 1 / pixels_of(1.0, shape)
    radius, rms = max(1.5 * BIN, 3 * pixel), np.inf
    coefficients = np.empty((3, 2))
    kept = np.empty(0, np.intp)
    for step in range(ROUNDS):
        apart, nearest = tree.query(place, distance_upper_bound=radius)
        mine = np.flatnonzero(np.isfinite(apart))
        degree = 3 if step < ROUNDS // 2 or len(mine) < 4 * LEAST_STARS else 6
        if len(mine) < LEAST_STARS:
            raise ValueError(f"{len(mine)} stars match the catalogue: expected {LEAST_STARS}")
        coefficients, kept, rms = _robust(terms[mine, :degree], truth[nearest[mine]])
        place = terms[:, :degree] @ coefficients
        radius = max(CLIP * rms, CLOSEST * pixel)
    if len(kept) < LEAST_STARS:
        raise ValueError(f"{len(kept)} stars match the catalogue: expected {LEAST_STARS}")
    return FittedSky(pointing, shape, coefficients, float(rms / pixel), len(kept))


def _robust(terms: Floats, target: Floats) -> tuple[Floats, NDArray[np.intp], float]:
    """Solve least squares, leaving out what is far off; coefficients, rows kept, rms of a coordinate."""
    kept: NDArray[np.intp] = np.arange(len(terms))
    for _ in range(10):
        coefficients, *_ = np.linalg.lstsq(terms[kept], target[kept], rcond=None)
        miss = np.abs(target - terms @ coefficients).max(axis=1)
        sigma = MAD_TO_SIGMA * float(np.median(miss[kept]))
        now = np.flatnonzero(miss <= max(CLIP * sigma, 1e-12))
        if np.array_equal(now, kept) or len(now) <= terms.shape[1]:
            break
        kept = now
    residual = target[kept] - terms[kept] @ coefficients
    return np.asarray(coefficients, np.float64), kept, float(np.sqrt(np.mean(residual**2)))


def _terms(x: Any, y: Any, shape: tuple[int, int]) -> Floats:
    """Return 1, x, y, x^2, xy, y^2 of pixels as parts of the quadrant from its middle, (star, 6)."""
    a, b = ((np.asarray(v, np.float64) + 0.5) / n - 0.5 for v, n in ((x, shape[1]), (y, shape[0])))
    return np.column_stack([np.ones_like(a), a, b, a * a, a * b, b * b])
