"""A survey in numbers: sizes, objects, requests, costs, and the farm that reduces it again in a week.

    python benchmarks/scale.py [--set NAME=VALUE …]

All that is assumed is in ``Assumptions``, each with where it comes from; the rest is arithmetic. Prints Markdown;
docs/scale.md holds a run.
"""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass

WEEK = 7 * 86_400.0
YEARS = 8


@dataclass(frozen=True)
class Assumptions:
    """What the arithmetic starts from. Seconds are of one core, of the machine in docs/benchmarks.md."""

    exposures: float = 1e6  # of the sky and calibrations, in eight years
    nights: float = YEARS * 300  # 65 nights a year are lost
    biases: float = 20  # a night
    flats: float = 55  # a night: 5 of each of 11 LEDs
    ccds: int = 16
    pixels: float = 4 * 3080 * 3072  # of a CCD
    overscan: float = 4 * 3080 * 30
    # Sizes: docs/benchmarks.md. Raw 0.89 of the tiles' 5.2 bits a pixel; science 7.6 bits, its mask 0.5.
    raw_bits: float = 4.72
    science_bits: float = 8.1
    master_bits: float = 16.0  # estimated: bias 6, flat 9, variance 6, count 1; a night has 1 + 3 of them
    # Objects: docs/benchmarks.md.
    file_objects: float = 4
    exposure_objects: float = 1  # headers
    science_objects: float = 2  # science and mask
    master_objects: float = 3.75  # 3 of a bias, 4 of each of 3 flats
    # Core seconds: docs/benchmarks.md, "Raw" and "Reductions", per file or entry.
    ingest_seconds: float = 38.2 / 40
    decode_seconds: float = 38.2 / 240
    bias_seconds: float = 2 * 7.7
    flat_seconds: float = 2 * 26
    science_seconds: float = 2.3
    verify_rate: float = 1.0e9  # bytes a second of a core: the checksums alone, without decoding
    # Requests: docs/object-stores.md. A file of raw is 4 creates; a mark of 64 files writes some 20 tables.
    mark_files: float = 64
    mark_puts: float = 22
    read_requests: float = 4
    # Prices, of no one in particular: set your own.
    store_price: float = 20.0  # a TB and month
    put_price: float = 5e-6  # a request that writes or lists
    get_price: float = 4e-7  # a request that reads
    egress_price: float = 50.0  # a TB read from outside; 0 inside
    core_price: float = 0.03  # a core and hour


@dataclass(frozen=True)
class Survey:
    """What follows for some part of the survey."""

    a: Assumptions
    share: float  # 1 for all of it

    @property
    def exposures(self) -> float:
        return self.a.exposures * self.share

    @property
    def nights(self) -> float:
        return self.a.nights * self.share

    @property
    def files(self) -> float:
        return self.exposures * self.a.ccds

    @property
    def science(self) -> float:
        """Entries of science: exposures of the sky, by CCD."""
        return self.files - self.nights * (self.a.biases + self.a.flats) * self.a.ccds

    @property
    def masters(self) -> float:
        """Biases, and flats of three filters, by CCD."""
        return self.nights * 4 * self.a.ccds

    @property
    def raw_bytes(self) -> float:
        return self.files * (self.a.pixels + self.a.overscan) * self.a.raw_bits / 8

    @property
    def float_bytes(self) -> float:
        return self.files * (self.a.pixels + self.a.overscan) * 4

    @property
    def science_bytes(self) -> float:
        return self.science * self.a.pixels * self.a.science_bits / 8

    @property
    def master_bytes(self) -> float:
        return self.masters * self.a.pixels * self.a.master_bits / 8

    @property
    def raw_objects(self) -> float:
        return self.files * self.a.file_objects + self.exposures * self.a.exposure_objects

    @property
    def product_objects(self) -> float:
        return self.science * self.a.science_objects + self.masters * self.a.master_objects

    @property
    def ingest_puts(self) -> float:
        return self.raw_objects + self.files / self.a.mark_files * self.a.mark_puts

    @property
    def reduce_seconds(self) -> dict[str, float]:
        """Core seconds of all products, by kind."""
        ccd_nights = self.nights * self.a.ccds
        return {
            "bias": ccd_nights * self.a.bias_seconds,
            "flat": ccd_nights * self.a.flat_seconds,
            "science": self.science * self.a.science_seconds,
        }


def sizes(survey: Survey) -> list[tuple[str, str]]:
    """What is stored."""
    return [
        ("exposures", f"{survey.exposures:,.0f}"),
        ("raw files", f"{survey.files:,.0f}"),
        ("raw", _bytes(survey.raw_bytes)),
        ("the same as float32", _bytes(survey.float_bytes)),
        ("masters, one version", _bytes(survey.master_bytes)),
        ("science with masks, one version", _bytes(survey.science_bytes)),
        ("objects of raw", _count(survey.raw_objects)),
        ("objects of products", _count(survey.product_objects)),
    ]


def requests(survey: Survey) -> list[tuple[str, str]]:
    """What passes to and fro, and what it costs."""
    a = survey.a
    stored = survey.raw_bytes + survey.science_bytes + survey.master_bytes
    reads = survey.files * a.read_requests
    checks = survey.raw_objects + survey.product_objects
    core_hours = sum(survey.reduce_seconds.values()) / 3600
    ingest_hours = survey.files * a.ingest_seconds / 3600
    return [
        ("requests that write, to ingest", _count(survey.ingest_puts)),
        ("requests that read, all raw once", _count(reads)),
        ("requests that read, to verify all", _count(checks)),
        ("cost of the requests of ingest", _money(survey.ingest_puts * a.put_price)),
        ("cost of the requests of reading raw", _money(reads * a.get_price)),
        ("cost of the requests of verify", _money(checks * a.get_price)),
        ("cost of storage, a month at this size", _money(stored / 1e12 * a.store_price)),
        ("the same without stored science", _money((stored - survey.science_bytes) / 1e12 * a.store_price)),
        ("cost of cores, to ingest", _money(ingest_hours * a.core_price)),
        ("cost of cores, to reduce once", _money(core_hours * a.core_price)),
        ("cost of raw read from outside, once", _money(survey.raw_bytes / 1e12 * a.egress_price)),
    ]


def farm(survey: Survey) -> list[tuple[str, str]]:
    """What reduces all of it in a week."""
    seconds = survey.reduce_seconds
    cores = {kind: value / WEEK for kind, value in seconds.items()}
    read = survey.raw_bytes
    written = survey.science_bytes + survey.master_bytes
    rows = [(f"cores for {kind}", f"{value:,.0f}") for kind, value in cores.items()]
    return [
        *rows,
        ("cores in all", f"{sum(cores.values()):,.0f}"),
        ("core hours", f"{sum(seconds.values()) / 3600:,.0f}"),
        ("read, GB/s", f"{read / WEEK / 1e9:.2f}"),
        ("written, GB/s", f"{written / WEEK / 1e9:.2f}"),
        ("requests a second, read and written", f"{_rate(survey):,.0f}"),
        ("MB/s of a core, read and written", f"{(read + written) / sum(seconds.values()) / 1e6:.1f}"),
        ("cores to verify all in a week", f"{(read + written) / survey.a.verify_rate / WEEK:.1f}"),
        ("cores to ingest all in a week", f"{survey.files * survey.a.ingest_seconds / WEEK:,.0f}"),
    ]


def _rate(survey: Survey) -> float:
    return (survey.files * survey.a.read_requests + survey.product_objects) / WEEK


def _bytes(count: float) -> str:
    return f"{count / 1e15:.3g} PB" if count >= 1e14 else f"{count / 1e12:.3g} TB"


def _count(count: float) -> str:
    return f"{count / 1e6:,.3g} million"


def _money(amount: float) -> str:
    return f"{amount:,.0f}"


def table(title: str, columns: dict[str, list[tuple[str, str]]]) -> str:
    """A Markdown table of columns that have the same rows."""
    names = [name for name, _ in next(iter(columns.values()))]
    lines = [f"| {title} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for i, name in enumerate(names):
        lines.append(f"| {name} | " + " | ".join(rows[i][1] for rows in columns.values()) + " |")
    return "\n".join(lines)


def with_settings(settings: list[str]) -> Assumptions:
    """The assumptions, some set otherwise."""
    changed = dict(setting.split("=", 1) for setting in settings)
    return dataclasses.replace(Assumptions(), **{name: float(value) for name, value in changed.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="of Assumptions")
    a = with_settings(parser.parse_args().set)
    parts = {"a year": Survey(a, 1 / YEARS), "eight years": Survey(a, 1.0)}
    for title, rows in (("stored", sizes), ("requests and costs", requests), ("in a week", farm)):
        print(table(title, {name: rows(part) for name, part in parts.items()}), end="\n\n")


if __name__ == "__main__":
    main()
