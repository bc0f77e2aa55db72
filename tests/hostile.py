"""Read hostile files in processes that may die, and judge each: as astropy reads it, or refused in one line.

``python tests/hostile.py 20000 [SEED]`` reads so many and counts what became of them.
"""

from __future__ import annotations

import collections
import io
import itertools
import json
import multiprocessing as mp
import os
import re
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from mutations import Seed, digest, is_rare, known_images, make_seeds, mutant
from peers import same_bits
from test_forms import FORMS

from ztfzarr.errors import RefusedError
from ztfzarr.ingest.fill import read_file
from ztfzarr.ingest.hdus import Hdu, file_bytes, read_hdus
from ztfzarr.ingest.images import is_compressed
from ztfzarr.ingest.rare import PRIMARY, quiet_astropy
from ztfzarr.ingest.scan import scan
from ztfzarr.ingest.sources import Source
from ztfzarr.ingest.tiles import RICE, algorithm, rice_parameters
from ztfzarr.kernels.dither import RANDOM, decode_rows

SECONDS = 5.0
BYTES = 2**30
OURS, ASTROPYS = 0, 1


@dataclass
class Tally:
    """What became of hostile files: outcomes counted, and the faults as (number, what)."""

    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    faults: list[tuple[int, str]] = field(default_factory=list)
    seconds: float = 0.0
    slowest: float = 0.0
    memory: int = 0


@dataclass(frozen=True)
class Case:
    """A process's share: which numbers, of which seeds."""

    numbers: range
    seed: int
    seeds: list[Seed]
    known: dict[bytes, np.ndarray]


def pixels_of(path: Path) -> tuple[list[bytes], list[np.ndarray]]:
    """The headers and images that ingest reads of a file."""
    values, filled = read_file(scan(Source(str(path))))
    images = [*values["raw"], *values["overscan"]]
    for image, scale, zero, dither in zip(images, values["zscale"], values["zzero"], filled.zdither, strict=True):
        decode_rows(image, scale, zero, dither, 0, 0, RANDOM)
    return filled.headers, [image.view(np.float32) for image in images]


def read(path: Path) -> tuple[str, Any]:
    """Read a file as ingest does: what it is, or the line that refuses it."""
    try:
        return "read", pixels_of(path)
    except RefusedError as error:
        line = str(error)
        if "\n" in line or len(line) > 250 or not line.isprintable():
            return "fault", f"no clear line: {line!r}"
        return "refused", line
    except BaseException:
        return "fault", "traceback: " + traceback.format_exc(limit=-3).replace("\n", " | ")


def judged(content: bytes, found: tuple[list[bytes], list[np.ndarray]], known: dict[bytes, np.ndarray]) -> str:
    """Compare with astropy's reading of the whole file: "" where they agree."""
    headers, images = found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(io.BytesIO(content), memmap=False) as file:
            places = [(h.fileinfo()["hdrLoc"], h.fileinfo()["datLoc"], h.fileinfo()["datSpan"]) for h in file]
            if len(places) < len(headers):  # what it says of a header that it cannot verify is a warning
                raise fits.VerifyError(f"{len(places)} HDUs")
            if [content[start:stop] for start, stop, _ in places] != headers:
                return "headers differ"
            for i, image in enumerate(images, start=1):
                start, stop, span = places[i]
                expected = known.get(digest(content[start : stop + span]))
                if expected is None:
                    expected = np.asarray(file[i].data)
                    if expected.dtype.kind not in "iuf":
                        return f"HDU {i}: astropy reads {expected.dtype}"
                    with np.errstate(all="ignore"):
                        expected = expected.astype(np.float32)
                if not same_bits(image, expected):
                    return f"HDU {i}: pixels differ"
    return ""


def outcome(path: Path, content: bytes, known: dict[bytes, np.ndarray], progress: Any) -> tuple[str, str]:
    path.write_bytes(content)
    progress[1], progress[2] = OURS, time.monotonic()
    kind, found = read(path)
    progress[3] = max(progress[3], time.monotonic() - progress[2])
    if kind != "read":
        return kind, found
    progress[1] = ASTROPYS
    try:
        difference = judged(content, found, known)
    except Exception as error:
        difference = plainly_judged(content, found)
        return ("fault", f"{difference} ({error!r})") if difference else ("equal without odd cards", repr(error))
    return ("fault", difference) if difference else ("equal", "")


def plainly_judged(content: bytes, found: tuple[list[bytes], list[np.ndarray]]) -> str:
    """Compare with astropy's reading of each extension without the cards that decide no pixel."""
    hdus = read_hdus(file_bytes(content), len(content))
    if [hdu.text for hdu in hdus] != found[0]:
        return "headers differ"
    for hdu, image in zip(hdus[1:], found[1], strict=True):
        extension = plain_header(hdu) + content[hdu.data_offset : hdu.end]
        try:
            with quiet_astropy(), fits.open(io.BytesIO(PRIMARY + extension), memmap=False) as file:
                expected = np.asarray(file[1].data).astype(np.float32)
        except Exception as error:
            return f"HDU {hdu.index}: astropy does not read it plainly: {error!r}"
        if not same_bits(image, expected):
            return f"HDU {hdu.index}: pixels differ from those read plainly"
    return ""


def known(hdu: Hdu, key: str) -> object:
    """The value of a card; None where it does not parse."""
    try:
        return hdu.value(key)
    except RefusedError:
        return None


def plain_header(hdu: Hdu) -> bytes:
    """The cards that decide how an extension's pixels are read; FITS's defaults where they are absent."""
    patterns = r"BITPIX|NAXIS\d*|BSCALE|BZERO"
    own: dict[str, object] = {"PCOUNT": hdu.integer("PCOUNT", 0), "GCOUNT": 1}
    if is_compressed(hdu):
        patterns += r"|TFIELDS|(TTYPE|TFORM)\d+|Z(IMAGE|CMPTYPE|BITPIX|NAXIS\d*|TILE\d+)"
        if hdu.integer("ZBITPIX") < 0 and any(known(hdu, f"TTYPE{i}") == "ZSCALE" for i in range(1, 9)):
            patterns += "|ZQUANTIZ"
            own |= {"ZDITHER0": known(hdu, "ZDITHER0")} if isinstance(known(hdu, "ZDITHER0"), int) else {}
        own |= {"THEAP": hdu.integer("THEAP", hdu.integer("NAXIS1") * hdu.integer("NAXIS2"))}
        own |= {"ZTILE1": hdu.integer("ZTILE1", hdu.integer("ZNAXIS1")), "ZTILE2": hdu.integer("ZTILE2", 1)}
        own |= {"ZNAME1": "'BLOCKSIZE'", "ZNAME2": "'BYTEPIX'"}
        own |= dict(zip(("ZVAL1", "ZVAL2"), rice_parameters(hdu), strict=True)) if algorithm(hdu) in RICE else {}
    blank = next((known(hdu, key) for key in ("ZBLANK", "BLANK") if known(hdu, key) is not None), None)
    bits = hdu.integer("ZBITPIX" if is_compressed(hdu) else "BITPIX")
    lowest = 0 if bits == 8 else -(2 ** (abs(bits) - 1))
    if isinstance(blank, int) and lowest <= blank < lowest + 2 ** abs(bits):
        own["ZBLANK" if is_compressed(hdu) else "BLANK"] = blank
    cards = [f"XTENSION= {str(hdu.value('XTENSION'))!r:20}"]
    for key, fields in hdu.cards.items():
        if re.fullmatch(patterns, key) and key not in own:
            cards.append(f"{key:8}{fields[0].decode()}")
    cards += [f"{key:8}= {value!s:>20}" for key, value in own.items() if f"ZVAL{key[-1]}" in own or key[1] != "N"]
    text = "".join(card.ljust(80) for card in [*cards, "END"]).encode()
    return text.ljust(-(-len(text) // 2880) * 2880)


def share(case: Case, progress: Any, results: Any) -> None:
    """Read a process's share, sending what became of each."""
    warm([seed for seed in case.seeds if is_rare(seed)][:1])  # astropy's process starts at no file's expense
    used, resident = (int(n) * resource.getpagesize() for n in Path("/proc/self/statm").read_text().split()[:2])
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
    with tempfile.TemporaryDirectory() as folder:
        for number in case.numbers:
            progress[0], progress[1], progress[2] = number, OURS, time.monotonic()
            name, content = mutant(number, case.seeds, seed=case.seed)
            results.send((number, *outcome(Path(folder, name), content, case.known, progress)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    results.send((-1, "memory", str(peak - resident)))


def plain_reason(line: str) -> str:
    """A line without its numbers, names and values: to be counted."""
    line = re.sub(r"b?'(?:[^'\\]|\\.)*'|b?\"(?:[^\"\\]|\\.)*\"", "'…'", line)
    line = re.sub(r"card \S* does not parse:.*", "card … does not parse", line)
    line = re.sub(r"[A-Z]+_?[A-Z0-9]+ = .*, expected an? ", "card of the wrong type, expected an ", line)
    line = re.sub(r"\(.*\)", "(…)", line)
    return re.sub(r"-?\d+(?:\.\d+)?", "#", line)


class Reader:
    """A process and the numbers that it has yet to read."""

    def __init__(self, case: Case, context: Any) -> None:
        self.case, self.context = case, context
        self.next = case.numbers.start
        self.start()

    def start(self) -> None:
        rest = range(self.next, self.case.numbers.stop)
        self.progress = self.context.RawArray("d", [self.next, OURS, time.monotonic(), 0.0])
        self.results, sender = self.context.Pipe(duplex=False)
        case = Case(rest, self.case.seed, self.case.seeds, self.case.known)
        self.process = self.context.Process(target=share, args=(case, self.progress, sender))
        self.process.start()
        sender.close()

    def drain(self, tally: Tally) -> bool:
        """Take results; True when the share is done."""
        try:
            while self.results.poll(0.05):
                number, kind, what = self.results.recv()
                if kind == "memory":
                    tally.memory = max(tally.memory, int(what))
                    self.process.join()
                    tally.slowest = max(tally.slowest, self.progress[3])
                    return True
                self.next = number + 1
                note(tally, number, kind, what)
        except EOFError:
            self.lost(tally, "crash")
            return self.next >= self.case.numbers.stop
        if time.monotonic() - self.progress[2] > SECONDS * (1 if self.progress[1] == OURS else 4):
            self.process.kill()
            self.lost(tally, "hang")
        return self.next >= self.case.numbers.stop and not self.process.is_alive()

    def lost(self, tally: Tally, how: str) -> None:
        """Note a process that died or hung, and go on after the file that did it."""
        self.process.join()
        number = max(int(self.progress[0]), self.next)
        kind = "fault" if self.progress[1] == OURS else "astropy fails"
        note(tally, number, kind, f"{how} ({self.process.exitcode})")
        self.next = number + 1
        if self.next < self.case.numbers.stop:
            self.start()


def note(tally: Tally, number: int, kind: str, what: str) -> None:
    shown = f"{kind}: {plain_reason(what)}" if what and kind != "fault" else kind
    tally.outcomes[shown] += 1
    if kind == "fault":
        tally.faults.append((number, what))


def run(
    count: int, *, seed: int = 0, first: int = 0, processes: int = 2, seeds: list[Seed] | None = None
) -> Tally:
    """Read ``count`` hostile files."""
    started, tally = time.monotonic(), Tally()
    if seeds is None:
        forms = [form for form in FORMS if shutil.which("fpack") or not form.marks]
        with tempfile.TemporaryDirectory() as folder:
            seeds = make_seeds(Path(folder), forms)
    known = known_images(seeds)
    warm(seeds)
    edges = np.linspace(first, first + count, processes + 1).astype(int).tolist()
    context = mp.get_context("fork")
    readers = [Reader(Case(range(a, b), seed, seeds, known), context) for a, b in itertools.pairwise(edges)]
    while readers:
        readers = [reader for reader in readers if not reader.drain(tally)]
    tally.seconds = time.monotonic() - started
    return tally


def warm(seeds: list[Seed]) -> None:
    """Read the whole files first: the forked processes then have every kernel compiled."""
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            path = Path(folder, seed.name)
            path.write_bytes(b"".join(header + data for header, data in seed.parts))
            pixels_of(path)


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    tally = run(count, seed=seed, processes=len(os.sched_getaffinity(0)))
    for reason, number in tally.outcomes.most_common():
        print(f"{number:7}  {reason}")
    for number, what in tally.faults:
        print(f"FAULT {number}: {what}")
    print(json.dumps({"seconds": round(tally.seconds, 1), "slowest": tally.slowest, "memory": tally.memory}))
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
