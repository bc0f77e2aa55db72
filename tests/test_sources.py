"""Where raw files come from: files, folders, globs, file:// and http:// URLs."""

from __future__ import annotations

import functools
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from obstore.store import LocalStore
from peers import same_bits
from rawfiles import noise, raw_name, write_raw

import ztfzarr
from ztfzarr.errors import RefusedError
from ztfzarr.ingest import sources
from ztfzarr.ingest.run import ingest
from ztfzarr.ingest.scan import scan
from ztfzarr.ingest.sources import Source, find_sources
from ztfzarr.store.objects import open_objects


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw files in the archive's folders, and what else lies about there."""
    root = tmp_path_factory.mktemp("tree")
    for i, folder in enumerate(("raw/2020/0924/1", "raw/2020/0924/1", "raw/2020/0925/2", "raw/2021/0101/[3]")):
        (root / folder).mkdir(parents=True, exist_ok=True)
        write_raw(root / folder, raw_name(9 - i))
    (root / "raw/2020/0924/1/notes.txt").write_text("not a raw file")
    (root / "raw/2020/0924/1/old.fits.bak").write_bytes(b"")
    (root / "empty").mkdir()
    return root


def found(*paths: object) -> tuple[list[str], list[tuple[str, str]]]:
    """The names that paths lead to, and the refusals."""
    files, refused = find_sources([str(p) for p in paths])
    return [source.name for source in files], refused


ALL = [raw_name(i) for i in (6, 7, 8, 9)]


def test_folder_is_searched_through(tree: Path) -> None:
    """In the order of names, which is that of time, not of folders."""
    assert found(tree / "raw") == (ALL, [])
    assert found(f"{tree}/raw/") == (ALL, [])


def test_file(tree: Path) -> None:
    path = tree / "raw/2020/0925/2" / raw_name(7)
    assert found(path) == ([raw_name(7)], [])
    assert found(f"file://{path}") == ([raw_name(7)], [])


def test_relative_path(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree / "raw")
    assert found("2020/0925") == ([raw_name(7)], [])
    assert found(".") == (ALL, [])


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("raw/2020/*/*/*.fits", ALL[1:]),
        ("raw/2020/**/*.fits", ALL[1:]),
        ("raw/2020/092[45]", ALL[1:]),
        ("raw/20??/0101", ALL[:1]),
        ("raw/*/*/*/*_c0[1-6]_*.fits", ALL),
        ("raw/2020/0924/1/*", None),
    ],
)
def test_glob(pattern: str, names: list[str] | None, tree: Path) -> None:
    """Of a pattern that also matches what is no raw file, each match is a path that somebody named."""
    names_found, refused = found(tree / pattern)
    assert names_found == (names or ["notes.txt", "old.fits.bak", raw_name(8), raw_name(9)])
    assert refused == []


def test_path_that_looks_like_a_glob(tree: Path) -> None:
    assert found(tree / "raw/2021/0101/[3]") == (ALL[:1], [])
    assert found(tree / "raw/2021/0101/[3]" / raw_name(6)) == (ALL[:1], [])


def test_empty_folder_holds_nothing(tree: Path) -> None:
    assert found(tree / "empty") == ([], [])


def test_each_file_once(tree: Path, tmp_path: Path) -> None:
    """However often it is named, through links, dots and URLs."""
    path = tree / "raw/2020/0925/2" / raw_name(7)
    (tmp_path / "link").symlink_to(tree / "raw/2020")
    (tmp_path / raw_name(7)).symlink_to(path)
    again = (
        path,
        f"{path.parent}/../2/{path.name}",
        f"file://{path}",
        tmp_path / "link/0925",
        tmp_path / raw_name(7),
    )
    assert found(*again, tree / "raw/*/0925") == ([raw_name(7)], [])


def test_links_below_a_folder(tree: Path, tmp_path: Path) -> None:
    """Linked files and folders are found, as of an archive on several disks; a link to a parent ends."""
    (tmp_path / "to-folder").symlink_to(tree / "raw/2020/0924")
    (tmp_path / "to-parent").symlink_to(tmp_path)
    (tmp_path / "to-nothing").symlink_to(tmp_path / "nowhere")
    (tmp_path / raw_name(7)).symlink_to(tree / "raw/2020/0925/2" / raw_name(7))
    assert found(tmp_path) == (ALL[1:], [])


def test_what_names_nothing_is_refused(tree: Path) -> None:
    paths = [tree / "nowhere", tree / "none*", tree / "raw/2020/0924/1/notes.txt/below", f"file://{tree}/no.fits"]
    names, refused = found(*paths, tree / "raw/2020/0925")
    assert names == [raw_name(7)]
    reasons = ["no such file or folder", "no file matches", "no such file or folder", "no such file or folder"]
    assert refused == [(str(p), reason) for p, reason in zip(paths, reasons, strict=True)]


def test_file_url_is_ingested_as_its_path(tree: Path, tmp_path: Path) -> None:
    path = tree / "raw/2020/0925/2" / raw_name(7)
    assert ingest(tmp_path / "cube.zarr", [f"file://{path}"]).ingested == 1
    assert ingest(tmp_path / "cube.zarr", [path]).skipped == 1


# Web servers


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Python's own server: gives no ranges."""

    asked: list[str]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.headers.get("Range", "all"))
        super().do_GET()


class WithRanges(Quiet):
    """A server that gives ranges, as all that serve archives do."""

    def do_GET(self) -> None:
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if span is None:
            super().do_GET()
            return
        self.server.asked.append(span[0])
        content = Path(self.translate_path(self.path)).read_bytes()
        first, last = int(span[1]), min(int(span[2]), len(content) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("Last-Modified", self.date_time_string())
        self.end_headers()
        self.wfile.write(content[first : last + 1])


class Server(http.server.ThreadingHTTPServer):
    """A server of a folder, with a list of what it was asked for."""

    def __init__(self, folder: Path, handler: type[Quiet]) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture(params=[Quiet, WithRanges], ids=["without ranges", "with ranges"])
def server(request: pytest.FixtureRequest, tree: Path) -> Iterator[Server]:
    served = Server(tree, request.param)
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


def test_http_url_is_ingested(server: Server, tmp_path: Path) -> None:
    urls = [f"{server.url}/raw/2020/0924/1/{raw_name(i)}" for i in (8, 9)]
    report = ingest(tmp_path / "cube.zarr", urls)
    assert report.refused == []
    cube = ztfzarr.open_cube(tmp_path / "cube.zarr")
    assert cube.source_name.sel(ccd=6).values.tolist() == [raw_name(8), raw_name(9)]
    assert same_bits(cube.raw.sel(ccd=6, quadrant=4).values[1], noise()[3])


def test_open_fits_of_a_url(server: Server) -> None:
    dataset = ztfzarr.open_fits(f"{server.url}/raw/2020/0924/1/{raw_name(8)}")
    assert same_bits(dataset.overscan.sel(ccd=6, quadrant=2).values[0], noise()[5])


def test_scan_of_a_url_takes_no_more_than_it_must(server: Server, tree: Path) -> None:
    """Headers, one request each, where the server gives ranges; else the whole file, once."""
    path = write_raw(tree / "empty", raw_name(4), noise(shape=(100, 600), overscan=90))
    scan(Source(f"{server.url}/empty/{path.name}"))
    path.unlink()
    if "all" in server.asked:
        assert server.asked == ["bytes=0-11519", "all"]
    else:
        spans = [[int(n) for n in asked.removeprefix("bytes=").split("-")] for asked in server.asked]
        assert len(spans) <= 9
        assert sum(last + 1 - first for first, last in spans) <= 9 * 4 * 2880


def test_missing_on_a_server_is_refused(server: Server, tmp_path: Path) -> None:
    url = f"{server.url}/raw/{raw_name(1)}"
    ((path, reason),) = ingest(tmp_path / "cube.zarr", [url]).refused
    assert path == url
    assert reason.startswith("cannot be read: ")
    assert "\n" not in reason
    assert "404" in reason


def test_same_url_twice_is_one(server: Server) -> None:
    url = f"{server.url}/raw/2020/0924/1/{raw_name(8)}"
    assert found(url, url) == ([raw_name(8)], [])


def test_damaged_on_a_server_is_refused(server: Server, tree: Path, tmp_path: Path) -> None:
    name = raw_name(3)
    content = (tree / "raw/2020/0925/2" / raw_name(7)).read_bytes()
    (tree / "empty" / name).write_bytes(content[:-2880])
    report = ingest(tmp_path / "cube.zarr", [f"{server.url}/empty/{name}"])
    (tree / "empty" / name).unlink()
    assert [reason.split(":")[0] for _, reason in report.refused] == ["truncated in HDU 8"]


def test_what_the_environment_says_of_a_site_s_own_object_store(server, tree, monkeypatch) -> None:
    """Its address, and that it is without encryption."""
    options = {"ENDPOINT": server.url, "ALLOW_HTTP": "true", "SKIP_SIGNATURE": "true", "REGION": "us-east-1"}
    for name, value in options.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    content = open_objects("s3://raw/2020/0925").get(f"2/{raw_name(7)}")
    assert content == (tree / "raw/2020/0925/2" / raw_name(7)).read_bytes()


@pytest.mark.parametrize("url", ["ftp://host/", "nonsense://host/"])
def test_unknown_url(url: str, tmp_path: Path) -> None:
    for path in (url, url + raw_name()):
        ((refused, reason),) = ingest(tmp_path / "cube.zarr", [path]).refused
        assert refused == path
        assert reason.startswith("cannot be read: Generic URL error: Unable to recognise URL")
        assert "\n" not in reason


def test_url_without_a_host() -> None:
    with pytest.raises(RefusedError, match=r"^cannot be read: "):
        scan(Source(f"http://{raw_name()}"))


@pytest.mark.parametrize("end", ["", "/"])
def test_prefix_of_an_object_store(end: str, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sources, "open_url", lambda url, options: LocalStore(tree / "raw" / url.removeprefix("s3://bucket/"))
    )
    assert found(f"s3://bucket/2020{end}") == (ALL[1:], [])
    assert found(f"s3://bucket/2020/0925/2/{raw_name(7)}") == ([raw_name(7)], [])
    reason = "globs are of local paths: expected the URL of a file or of a prefix"
    assert found(f"s3://bucket/2020/*{end}") == ([], [(f"s3://bucket/2020/*{end}", reason)])
