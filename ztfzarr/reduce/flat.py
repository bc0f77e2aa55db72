"""Master flats of a store: one a period, filter and CCD, with the numbers that judge it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfzarr.kernels.lamp import add_lamp
from ztfzarr.masters.bits import MASKS
from ztfzarr.masters.calibrations import night_noon
from ztfzarr.masters.flat import led_shares
from ztfzarr.masters.flat_quality import BIN, flat_difference, flat_quality
from ztfzarr.masters.mask import bad_in_bias, bad_in_flat
from ztfzarr.masters.noise import combined_gain
from ztfzarr.reduce.fitted_pockets import FittedPockets
from ztfzarr.reduce.images import read_master
from ztfzarr.reduce.inputs import Inputs
from ztfzarr.reduce.lamps import Buffers, Lamp, combine_lamp, with_quantisation
from ztfzarr.reduce.parts import Part, encoded_image, in_threads, parts_of, sampled
from ztfzarr.reduce.provenance import master_provenance
from ztfzarr.reduce.settings import led_weights, leds_of
from ztfzarr.reduce.shelf import open_shelf
from ztfzarr.reduce.starflat_map import Starflat, starflat_of
from ztfzarr.store.entries import Entry, create_entry
from ztfzarr.store.group import array_of
from ztfzarr.store.products import FILTERS, LEDS
from ztfzarr.store.versions import Version, made

STRIDE: Final = 8  # which rows judge a master

Tables = dict[str, Any]


@dataclass(frozen=True)
class Dark:
    """What flats are calibrated by.

    The master bias: its night, image (DN), bad pixels, and the read noise (DN); fitted pockets; all their names.
    The starflat that flats are multiplied by.
    """

    night: int
    image: xr.DataArray
    bad: xr.DataArray
    noise: xr.DataArray
    pockets: xr.Dataset | None
    masters: dict[str, str]
    starflat: Starflat | None

    def names_of(self, band: str) -> dict[str, str]:
        """Name what the flat of a filter is made with."""
        return self.masters if self.starflat is None else self.masters | {"starflat": self.starflat.name(band)}


def make_flat(version: Version, bias: Version, inputs: Inputs, threads: int) -> list[Entry]:
    """Make the master flats of a period and CCD, LED after LED, and create their objects.

    Parameters
    ----------
    version : Version
        Of kind ``flat``, from ``prepare_version``.
    bias : Version
        Of master biases.
    inputs : Inputs
        The flats of a period and CCD.
    threads : int
        To work in.

    Returns
    -------
    list of Entry
        One a filter, to be marked.

    Raises
    ------
    ValueError
        If a LED, the master bias or the starflat of a filter is missing, or there are too few frames of a LED.
    """
    exposures = inputs.open(version.objects)
    leds = leds_of(version.recipe)
    missing = sorted(set(leds) - set(exposures["led"].values.tolist()))
    if missing:
        named = ", ".join(map(str, missing))
        raise ValueError(f"no flats of LED {named}: name them in flat.without_leds to do without")
    dark = _dark(version, bias, exposures, inputs)
    exposures = with_quantisation(version, exposures)
    common = _lamp_tables()
    gains: dict[int, xr.Dataset] = {}
    entries, buffers = [], Buffers()
    for name in sorted(set(leds.values())):
        members = [led for led, filter_name in leds.items() if filter_name == name]
        images = _filter_flat(version, exposures, members, dark, (common, gains), buffers, threads)
        images["bad"] = _bad(version, images, dark.bad, inputs.ccd, threads)
        place = inputs.row, FILTERS.index(name), inputs.ccd - 1
        if dark.starflat is not None:
            _multiply(version, images, dark.starflat, place, threads)
        create_entry(version, place, encoded_image(version, images, threads))
        used = exposures.isel(time=np.isin(exposures["led"].values, members))
        own = _quality(version, images, place, inputs.ccd) | _sources(version, used, dark, name)
        entries.append(Entry(place, {**own, "inputs": exposures.sizes["time"]}))
    common |= _gain_tables(gains, exposures)
    return [Entry(entry.place, {**common, **entry.tables}) for entry in entries]


def _dark(version: Version, bias: Version, exposures: xr.Dataset, inputs: Inputs) -> Dark:
    """Choose and read the master bias: that of the period's first night, or near it."""
    shelf = open_shelf(bias)
    chosen = shelf.choose(night_noon(inputs.night), inputs.night, (inputs.ccd - 1,), version.recipe, "flat")
    if chosen is None:
        validity = version.recipe["flat"]["validity"]
        raise ValueError(f"no {bias.group} of CCD {inputs.ccd} within {validity} days, of the same epoch")
    place = chosen[0], inputs.ccd - 1
    image = read_master(bias, place, ("bias", "count"), inputs.ccd)
    limits = _limits(version)
    bad = bad_in_bias(image, hot=limits["hot"], noisy=limits["noisy"])
    header = (exposures["read_noise"] / exposures["gain"]).mean("time", skipna=True)
    measured = np.asarray(array_of(bias.open(), "read_noise")[place])
    noise = header.copy(data=np.where(np.isfinite(measured), measured, header.values[0])[np.newaxis])
    masters = {"bias": shelf.name(chosen[0])}
    pockets, name = _pockets(version, inputs)
    masters |= {"pocket": name} if name else {}
    noise = noise.assign_attrs(units="DN")
    return Dark(int(shelf.night[chosen[0]]), image["bias"], bad, noise, pockets, masters, _starflat(version))


def _starflat(version: Version) -> Starflat | None:
    """Open the starflat of the flats, with a map of each of their filters."""
    starflat, leds = starflat_of(version.objects, version.recipe, "flat"), leds_of(version.recipe)
    lacking = [] if starflat is None else starflat.lacking(sorted({FILTERS.index(name) for name in leds.values()}))
    if starflat is not None and lacking:
        without = [led for led, name in leds.items() if name in lacking]
        raise ValueError(
            f"no {starflat.name(lacking[0])}: make it with ztfzarr starflat, or do without its LEDs "
            f"(flat.without_leds={without})"
        )
    return starflat


def _pockets(version: Version, inputs: Inputs) -> tuple[xr.Dataset | None, str]:
    """Choose the fitted pockets of a flat, and name them; None for the table's, or if none are corrected."""
    pocket = version.recipe["pocket"]
    if not pocket.get("fit") or pocket["correct"] == "off":
        return None, ""
    fitted = FittedPockets(version.objects, pocket["fit"])
    return fitted.choose(night_noon(inputs.night), inputs.night, inputs.ccd, version.recipe)


def _lamp_tables() -> Tables:
    tables: Tables = {name: np.full(len(LEDS), np.nan) for name in ("led_level", "led_drift")}
    quadrants = np.full((len(LEDS), 4), np.nan)
    return tables | {"led_frames": np.zeros(len(LEDS), np.int16), "led_quadrant_level": quadrants}


def _filter_flat(
    version: Version,
    exposures: xr.Dataset,
    leds: list[int],
    dark: Dark,
    found: tuple[Tables, dict[int, xr.Dataset]],
    buffers: Buffers,
    threads: int,
) -> dict[str, NDArray[Any]]:
    """Add up the LEDs of a filter: ``flat``, ``variance``, ``count``; note what they show in ``found``."""
    tables, gains = found
    shares = led_shares(leds, led_weights(version.recipe))
    shape = dark.image.shape[1:]
    kinds = {"flat": np.float32, "variance": np.float32, "count": np.int16}
    images: dict[str, NDArray[Any]] = {n: buffers.get(f"sum of {n}", shape, dtype) for n, dtype in kinds.items()}
    for image in images.values():
        image[...] = 0
    for led in leds:
        frames = exposures.isel(time=exposures["led"].values == led)
        lamp = combine_lamp(version, frames, dark.image, dark.noise, dark.pockets, buffers, threads)
        _add(images, lamp, shares[led], threads)
        i = LEDS.index(led)
        tables["led_level"][i] = lamp.level
        tables["led_drift"][i] = np.ptp(lamp.medians) / lamp.medians.mean()
        tables["led_frames"][i] = len(lamp.medians)
        tables["led_quadrant_level"][i] = lamp.quadrant_level
        gains[led] = lamp.gain
    return images


def _add(images: dict[str, NDArray[Any]], lamp: Lamp, share: float, threads: int) -> None:
    unit = np.float32(1.0 / lamp.level)

    def add(q: int) -> None:
        sums = (images[name][q] for name in ("flat", "variance", "count"))
        add_lamp(lamp.mean[q], lamp.variance[q], lamp.count[q], unit, np.float32(share), *sums)

    in_threads(threads, add, range(lamp.mean.shape[0]))


def _multiply(
    version: Version, images: dict[str, NDArray[Any]], starflat: Starflat, place: tuple[int, ...], threads: int
) -> None:
    """Multiply a flat by the map of its filter; where this is not determined, it has no calibration."""

    def multiply(part: Part) -> None:
        where = (np.arange(s.start, s.stop) for s in part.region)
        factor = starflat.factor(place[1], place[2] + 1, *where)
        images["flat"][part.region] *= factor
        images["variance"][part.region] *= factor**2
        images["bad"][part.region] |= ~np.isfinite(factor) * np.uint16(MASKS["no_calibration"])

    in_threads(threads, multiply, parts_of(version, 1))


def _limits(version: Version) -> dict[str, float]:
    limits: dict[str, float] = version.recipe["bad_pixels"]
    return limits


def _bad(
    version: Version, images: dict[str, NDArray[Any]], of_bias: xr.DataArray, ccd: int, threads: int
) -> NDArray[np.uint16]:
    """Find the bad pixels of the flat, and add those of the bias."""
    limits = {name: value for name, value in _limits(version).items() if name != "hot"}

    def of_quadrant(q: int) -> NDArray[np.uint16]:
        flat = _labelled({n: images[n][q : q + 1] for n in ("flat", "count")}, ccd, [q + 1])
        return np.asarray(bad_in_flat(flat, **limits).values[0, 0] | of_bias.values[0, q])

    return np.stack(in_threads(threads, of_quadrant, range(len(images["flat"]))))


def _labelled(images: dict[str, NDArray[Any]], ccd: int, quadrants: list[int]) -> xr.Dataset:
    dims = ("ccd", "quadrant", "y", "x")
    labels = {"ccd": [ccd], "quadrant": quadrants}
    dataset = xr.Dataset({name: (dims, image[np.newaxis]) for name, image in images.items()}, labels)
    dataset["flat"].attrs["units"] = "1"
    return dataset


def _quality(version: Version, images: dict[str, NDArray[Any]], place: tuple[int, ...], ccd: int) -> Tables:
    recipe = version.recipe["flat"]
    few = {name: sampled(images[name], STRIDE) for name in ("flat", "count")}
    quadrants = list(range(1, len(images["flat"]) + 1))
    sample = _labelled(few, ccd, quadrants)
    limits = {"scatter": recipe["scatter"], "rejection": recipe["rejected"], "rows": BIN // STRIDE}
    judged = flat_quality(sample, **limits).isel(ccd=0)
    tables = {name: judged[name].values for name in ("scatter", "rejected", "flag")}
    tables["quadrant_level"] = judged["level"].values
    tables["difference"] = np.full(len(quadrants), np.nan, np.float32)
    before = _before(version, place)
    if before is not None:
        other = np.asarray(array_of(version.open(), "flat")[(before, *place[1:])])
        previous = _labelled({"flat": sampled(other, STRIDE)}, ccd, quadrants)["flat"]
        compared = flat_difference(sample["flat"], previous, rows=BIN // STRIDE)
        tables["difference"] = compared["difference"].values[0]
    return tables


def _before(version: Version, place: tuple[int, ...]) -> int | None:
    """Return the row of the flat of the same filter and CCD of the nearest night before; None if there is none."""
    nights = np.asarray(array_of(version.open(), "night")[...])
    column: tuple[Any, ...] = (slice(None), *place[1:])
    earlier = np.flatnonzero(made(version)[column] & (nights < nights[place[0]]))
    return int(earlier[np.argmax(nights[earlier])]) if earlier.size else None


def _sources(version: Version, used: xr.Dataset, dark: Dark, band: str) -> Tables:
    nights = used["night"].values
    return {
        "first_night": int(nights.min()),
        "last_night": int(nights.max()),
        "bias_night": dark.night,
        "provenance": master_provenance(version, used, {}, dark.names_of(band)),
    }


def _gain_tables(gains: dict[int, xr.Dataset], exposures: xr.Dataset) -> Tables:
    """Average the gains of the LEDs, and compare with the header's."""
    each = xr.concat(list(gains.values()), xr.DataArray(list(gains), dims="led", name="led"))
    found = combined_gain(each).isel(ccd=0)
    header = exposures["gain"].mean("time", skipna=True).values[0]
    gain = found["gain"].values
    return {"gain": gain, "gain_error": found["error"].values, "gain_ratio": gain / header}
