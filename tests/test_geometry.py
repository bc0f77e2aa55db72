"""The camera's conventions, against the facts of the real header and of the corner table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztfzarr import geometry, tables


def test_read_out_channels() -> None:
    channels = [geometry.rcid(c, q) for c in geometry.CCDS for q in geometry.QUADRANTS]
    assert channels == list(range(64))
    assert geometry.rcid(13, 3) == 50  # RCID of the real quadrant: CCD 13 q3
    with pytest.raises(ValueError, match="ccd 17, quadrant 1: expected 1-16 and 1-4"):
        geometry.rcid(17, 1)


# Where the first-read pixel of a quadrant is stored: row, column.
FIRST_READ = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0)}


@pytest.mark.parametrize("quadrant", geometry.QUADRANTS)
def test_read_order(quadrant: int) -> None:
    stored = np.arange(30).reshape(5, 6)
    view = geometry.in_read_order(stored, quadrant)
    assert view[0, 0] == stored[FIRST_READ[quadrant]]
    assert np.array_equal(geometry.in_read_order(view, quadrant), stored)
    assert np.shares_memory(view, stored)


@given(
    quadrant=st.sampled_from(geometry.QUADRANTS),
    width=st.integers(1, 40),
    limits=st.tuples(st.integers(0, 39), st.integers(1, 40)),
)
def test_stored_columns_are_those_read(quadrant: int, width: int, limits: tuple[int, int]) -> None:
    first, stop = limits
    if not first < stop <= width:
        with pytest.raises(ValueError, match="expected within"):
            geometry.stored_columns(quadrant, first, stop, width)
        return
    row = np.arange(width)[None, :]
    read = geometry.in_read_order(row, quadrant)[0, first:stop]
    stored = row[0, geometry.stored_columns(quadrant, first, stop, width)]
    assert sorted(read) == list(stored)


# CD matrix (degrees per pixel; rows: to the east, to the north) of CCD 13 q3 in the header of ztf_20200924431759.
REAL_CD = np.array([[-2.811703032876e-4, -7.697098117566e-6], [7.721274603541e-6, -2.811698359281e-4]])


def test_a_quadrant_on_the_sky() -> None:
    """The real header: stored columns run to the west and stored rows to the south."""
    stored = np.arange(12).reshape(3, 4)
    (east_x, east_y), (north_x, north_y) = REAL_CD
    assert east_x < -30 * abs(east_y)
    assert north_y < -30 * abs(north_x)
    shown = geometry.on_sky(stored)  # row 0 at the bottom, column 0 at the left
    assert shown[-1, -1] == stored[0, 0]  # north-east
    assert np.array_equal(geometry.on_sky(shown), stored)


def test_a_ccd_on_the_sky() -> None:
    quadrants = np.arange(4 * 2 * 3).reshape(4, 2, 3)
    joined = geometry.ccd_on_sky(quadrants)
    q1, q2, q3, q4 = (geometry.on_sky(q) for q in quadrants)
    assert np.array_equal(joined, np.vstack([np.hstack([q3, q4]), np.hstack([q2, q1])]))
    # Each amplifier reads the corner of the CCD that it stands at first.
    first_read = [geometry.in_read_order(quadrants[q - 1], q)[0, 0] for q in geometry.QUADRANTS]
    assert first_read == [joined[-1, -1], joined[-1, 0], joined[0, 0], joined[0, -1]]


def test_the_focal_plane_agrees_with_the_corner_table() -> None:
    """North up, east right: the table's coordinates grow to the east and to the north."""
    centres = tables.quadrant_corners().mean(axis=1)
    ccds = centres.reshape(16, 4, 2).mean(axis=1)
    for row in geometry.FOCAL_PLANE:
        assert np.all(np.diff([ccds[c - 1, 0] for c in row]) > 0)
        assert np.ptp([ccds[c - 1, 1] for c in row]) < 0.1
    north = [np.mean([ccds[c - 1, 1] for c in row]) for row in geometry.FOCAL_PLANE]
    assert np.all(np.diff(north) < 0)
    for ccd in geometry.CCDS:
        upper, lower = geometry.CCD_LAYOUT
        ns = {q: centres[geometry.rcid(ccd, q), 1] for q in geometry.QUADRANTS}
        ew = {q: centres[geometry.rcid(ccd, q), 0] for q in geometry.QUADRANTS}
        assert min(ns[q] for q in upper) > max(ns[q] for q in lower)
        assert ew[upper[0]] < ew[upper[1]]
        assert ew[lower[0]] < ew[lower[1]]


def test_the_corner_table_agrees_with_the_real_header() -> None:
    """CCD 13 q3 in the header of ztf_20200924431759: TELRAD, TELDECD, and CRVAL at the quadrant's centre."""
    pointing, centre = np.array([55.0608, 33.35]), np.array([57.99740327150, 35.74628707041])
    offset = (centre - pointing) * [np.cos(np.deg2rad(centre[1])), 1]
    table = tables.quadrant_corners()[geometry.rcid(13, 3)].mean(axis=0)
    assert table == pytest.approx(offset, abs=0.05)  # the table and the pointing miss by about 125 pixels


NIGHTS = [
    pytest.param("2020-09-24T10:21:45", 20200924, id="the real exposure"),
    pytest.param("2020-08-01T00:30:00", 20200801, id="calibrations after midnight UTC"),
    pytest.param("2020-07-31T23:50:00", 20200801, id="calibrations before midnight UTC, same night"),
    pytest.param("2019-12-31T23:50:00", 20200101, id="across New Year"),
    pytest.param("2020-02-28T20:00:00", 20200229, id="leap day"),
    pytest.param("2020-09-24T19:46:59", 20200924, id="last minute before local noon"),
    pytest.param("2020-09-24T19:47:00", 20200925, id="local noon"),
]


@pytest.mark.parametrize(("time", "night"), NIGHTS)
def test_night(time: str, night: int) -> None:
    assert geometry.night_of(np.array([np.datetime64(time)])) == [night]


EPOCHS = [
    ("2018-03-01", "201803"),
    ("2019-10-22T23:59:59", "201803"),
    ("2019-10-23", "201910"),
    ("2020-04-27T23:59:59", "201910"),
    ("2020-04-28", "202004"),
    ("2026-01-01", "202004"),
]


@pytest.mark.parametrize(("time", "epoch"), EPOCHS)
def test_linearity_epoch(time: str, epoch: str) -> None:
    assert geometry.linearity_epoch(np.datetime64(time)) == epoch


def test_filefracday() -> None:
    time = geometry.filefracday_time(20200924431759)
    opened = np.datetime64("2020-09-24T10:21:45.646")
    assert (opened - time) / np.timedelta64(1, "s") == pytest.approx(1.7, abs=0.05)
    with pytest.raises(ValueError, match="out of range"):
        geometry.filefracday_time(20201332000000)


def test_leds() -> None:
    assert sorted(geometry.LED_FILTERS) == [2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13]
    assert {f: sum(v == f for v in geometry.LED_FILTERS.values()) for f in ("zg", "zr", "zi")} == {
        "zg": 4, "zr": 4, "zi": 3,
    }  # fmt: skip


LEVELS = [("201803", -0.0090), ("201910", -0.0096), ("202004", 0.0036)]


@pytest.mark.parametrize(("epoch", "expected"), LEVELS)
def test_linearity_tables_at_40_kdn(epoch: str, expected: float) -> None:
    a, b = tables.linearity(epoch)
    change = 1 / (a * 4e4**2 + b * 4e4 + 1) - 1
    assert np.median(change) == pytest.approx(expected, abs=5e-5)


def test_pocket_table() -> None:
    table = tables.pocket()
    assert set(table) == {"alpha", "cmax", "beta", "nmax"}
    assert table["cmax"][5].min() > 1600  # CCD 6 has the largest pockets
    assert all(values.shape == (16, 4) for values in table.values())
