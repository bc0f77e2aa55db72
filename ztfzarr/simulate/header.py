"""Headers of raw files: the cards of a real exposure, with the values of a made one."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

import numpy as np
from astropy.io import fits

from ztfzarr.geometry import FILTER_IDS, IMAGE_TYPES, PIXEL_SCALE, QUADRANTS
from ztfzarr.simulate import ephemeris
from ztfzarr.simulate.camera import Camera
from ztfzarr.simulate.conditions import Conditions
from ztfzarr.simulate.schedule import Exposure
from ztfzarr.simulate.tiles import Card

MJD_EPOCH: Final = np.datetime64("1858-11-17", "us")
# The real exposure of 30 s lasted 29.964 s from SHUTOPEN to SHUTCLSD.
SHUTTER_LOSS: Final = np.timedelta64(36, "ms")

# Amplifier names in the order of the quadrants (linearity tables; the real header of quadrant 3).
AMPLIFIERS: Final = ("H", "G", "F", "E")

# Made wavelengths (nm) within the filters' bands, and powers (%), of the LEDs.
LED_WAVES: Final = dict(zip((2, 3, 4, 5), (420.0, 455.0, 500.0, 530.0), strict=True)) | {
    **dict(zip((7, 8, 9, 10), (590.0, 620.0, 660.0, 700.0), strict=True)),
    **dict(zip((11, 12, 13), (740.0, 780.0, 850.0), strict=True)),
}

Values = dict[str, object]


@cache
def _template(name: str) -> fits.Header:
    lines = (files(__package__) / name).read_text().splitlines()
    return fits.Header.fromstring("\n".join(line for line in lines if not line.startswith("#")), sep="\n")


def file_name(exposure: Exposure, ccd: int) -> str:
    """Return the name of a raw file, without the .fz of its compressed form."""
    return f"ztf_{exposure.number}_{exposure.field:06d}_{exposure.filter}_c{ccd:02d}_{exposure.kind}.fits"


def primary_header(camera: Camera, exposure: Exposure, now: Conditions, ccd: int) -> fits.Header:
    """Make the primary header of a raw file.

    Parameters
    ----------
    camera : Camera
        Its seed is named in a HISTORY card.
    exposure : Exposure
        What was taken, when and where.
    now : Conditions
        Of the exposure; gives the pointing error.
    ccd : int
        1-16.
    """
    header = fits.PrimaryHDU().header
    header.extend(_template("primary.txt").copy())
    groups = (_time, _names, _filter, _pointing, _sky, _lamp)
    values = {key: value for group in groups for key, value in group(exposure, now).items()}
    name = file_name(exposure, ccd)
    for key, value in (values | {"FILENAME": name, "ORIGNAME": name}).items():
        header[key] = value
    header.add_history(f"simulated by ztfzarr, seed {camera.seed}")
    return header


def extension_cards(camera: Camera, ccd: int, image: int) -> list[Card]:
    """Make the cards of extension 1-8 of a raw file: quadrants, then their overscans."""
    quadrant = QUADRANTS[(image - 1) % len(QUADRANTS)]
    at = camera.at(ccd, quadrant)
    values = {
        "CCD_ID": ccd,
        "CCDNAME": f"S{ccd:02d}",
        "AMP_ID": quadrant - 1,
        "AMP_NAME": AMPLIFIERS[quadrant - 1],
        "GAIN": round(float(camera.nominal_gain[at]), 2),
        "READNOI": round(float(camera.nominal_read_noise[at]), 1),
    }
    cards = _template("extension.txt").cards
    own = [(card.keyword, values.get(card.keyword, card.value), card.comment) for card in cards]
    return [("EXTNAME", str(image), "extension name"), *own]


def _names(exposure: Exposure, _now: Conditions) -> Values:
    science = exposure.kind == "o"
    return {
        "IMGTYPE": IMAGE_TYPES[exposure.kind],
        "FRAMENUM": exposure.frame,
        "FIELDID": exposure.field,
        "PROGRMID": 1 if science else 0,
        "PROGRMPI": "Kulkarni" if science else "",
        "REQUSTID": 170 if science else 0,
        "QCOMMENT": "all_sky" if science else "calibration",
        "DOMESTAT": "Open" if science else "Closed",
    }


def _time(exposure: Exposure, _now: Conditions) -> Values:
    opened = exposure.shutter_open
    # The real OBSMJD is the whole second of SHUTOPEN.
    mjd = float((opened.astype("datetime64[s]") - MJD_EPOCH) / np.timedelta64(1, "D"))
    loss = SHUTTER_LOSS if exposure.exptime else np.timedelta64(0, "ms")
    open_for = np.timedelta64(round(exposure.exptime * 1000), "ms") - loss
    lst = ephemeris.sidereal_time(opened) / 15
    return {
        "EXPOSURE": exposure.exptime,
        "EXPTIME": exposure.exptime,
        "SHUTOPEN": str(opened),
        "SHUTCLSD": str(opened + open_for),
        "OBSMJD": round(mjd, 7),
        "OBSJD": round(mjd + 2_400_000.5, 7),
        "HJD": round(mjd + 2_400_000.5, 7),
        "OBLST": sexagesimal(lst, ":", 1),
    }


def _filter(exposure: Exposure, _now: Conditions) -> Values:
    if exposure.kind == "b":
        return {"FILTER": "", "FILTERID": 0, "FILTPOS": 0}
    number = next(i for i, name in FILTER_IDS.items() if name == exposure.filter)
    return {"FILTER": f"ZTF_{exposure.filter[1]}", "FILTERID": number, "FILTPOS": number}


def _pointing(exposure: Exposure, now: Conditions) -> Values:
    """Give the requested and the telescope's direction: stars move with x where it points too far east."""
    ra, dec, time = exposure.ra, exposure.dec, exposure.shutter_open
    error = np.array([now.shift_x, now.shift_y]) * PIXEL_SCALE / 3600 * (exposure.kind == "o")
    tel_ra, tel_dec = (ra + error[0] / np.cos(np.radians(dec))) % 360, dec + error[1]
    azimuth, elevation = ephemeris.horizontal(tel_ra, tel_dec, time)
    angle = ephemeris.hour_angle(ra, time) / 15
    return {
        "OBJRAD": ra, "OBJDECD": dec, "RAD": ra, "DECD": dec,
        "RA": sexagesimal(ra / 15, ":", 2), "DEC": sexagesimal(dec, ":", 0),
        "OBJRA": sexagesimal(ra / 15, "hms", 2), "OBJDEC": sexagesimal(dec, "dms", 0),
        "TELRA": sexagesimal(tel_ra / 15, ":", 2), "TELDEC": sexagesimal(tel_dec, ":", 1),
        "TELRAD": round(float(tel_ra), 5), "TELDECD": round(float(tel_dec), 5),
        "AZIMUTH": round(azimuth, 2), "ELVATION": round(elevation, 2), "DOME_AZ": round(azimuth, 1),
        "AIRMASS": round(ephemeris.airmass(elevation), 3),
        "HOURANG": sexagesimal(angle, ":", 2), "HOURANGD": round(angle, 6),
    }  # fmt: skip


def _sky(exposure: Exposure, _now: Conditions) -> Values:
    time = exposure.shutter_open
    sun_azimuth, sun_altitude = ephemeris.horizontal(*ephemeris.sun(time), time)
    moon_ra, moon_dec = ephemeris.moon(time)
    phase = ephemeris.moon_phase_angle(time)
    return {
        "SUNAZ": round(sun_azimuth, 4),
        "SUNALT": round(sun_altitude, 4),
        "MOONRA": round(moon_ra, 3),
        "MOONDEC": round(moon_dec, 3),
        "MOONALT": round(ephemeris.horizontal(moon_ra, moon_dec, time)[1], 4),
        "MOONILLF": round(float(1 + np.cos(np.radians(phase))) / 2, 6),
        "MOONPHAS": round(phase, 4),
    }


def _lamp(exposure: Exposure, _now: Conditions) -> dict[str, object]:
    if exposure.kind != "f":
        return {}
    return {
        "ILUM_LED": (exposure.led, "LED of the flat-field illuminator"),
        "ILUMWAVE": (LED_WAVES[exposure.led], "Wavelength of the LED (nm)"),
        "ILUMPOWR": (50.0, "Power of the LED (%)"),
    }


def sexagesimal(value: float, marks: str, digits: int) -> str:
    """Write hours or degrees as the camera does: "+03:40:14.59", or with marks "hms", "+03h40m14.59s"."""
    units = round(abs(value) * 3600 * 10**digits)
    rest, fraction = divmod(units, 10**digits)
    big, small = divmod(rest, 3600)
    minutes, seconds = divmod(small, 60)
    first, second, last = {":": (":", ":", ""), "hms": ("h", "m", "s"), "dms": ("d", "m", "s")}[marks]
    decimals = f".{fraction:0{digits}d}" if digits else ""
    return f"{'-' if value < 0 else '+'}{big:02d}{first}{minutes:02d}{second}{seconds:02d}{decimals}{last}"
