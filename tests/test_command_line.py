"""The command line as a person meets it: every mistake is one clear line and the right exit status."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from ztfzarr.cli import cli, main
from ztfzarr.cli.progress import progress

DEVICE_FULL = Path("/dev/full")


class Ran:
    """What a command printed and its exit status."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> None:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        self.status = ended.value.code
        self.out, self.err = capsys.readouterr()


@pytest.fixture(scope="module")
def damaged(local: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Places that are no stores, or not ours, beside a good store ``night.zarr``."""
    tmp_path = tmp_path_factory.mktemp("damaged")
    shutil.copytree(local, tmp_path / "night.zarr")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("a file\n")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "broken.toml").write_text("[overscan\n")
    (tmp_path / "wrong.toml").write_text("[overscan]\ncolums = [5, 25]\n")
    for name, group in {"newer.zarr": "raw", "newer-bias.zarr": "bias/v1"}.items():
        document = Path(shutil.copytree(local, tmp_path / name)) / group / "zarr.json"
        document.write_text(document.read_text().replace('"format": 1', '"format": 2'))
    broken = Path(shutil.copytree(local, tmp_path / "broken.zarr"))
    (broken / "raw" / "zarr.json").write_text("{")
    return tmp_path


MORE = {
    "compare": ["bias", "v1", "v2"],
    "drop": ["bias", "v1", "--yes"],
    "find": ["1", "2"],
    "show": ["raw", "-o", "x.png"],
    "export": ["science", "out"],
    "restore": ["out"],
    "copy": ["to.zarr"],
    "repair": ["folder"],
}


@pytest.mark.parametrize("command", [*MORE, "bias", "run", "ls", "info", "verify"])
@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("missing.zarr", "no store with raw exposures at"),
        ("folder", "no store with raw exposures at"),
        ("file", "file is not a folder: expected that of a store"),
        ("newer.zarr", "format 2: this version reads format 1"),
        ("broken.zarr", "zarr.json is damaged"),
        ("s3://", "Unable to recognise URL"),
    ],
)
def test_what_is_no_store(
    command: str, store: str, said: str, damaged: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(damaged)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    ran = Ran(capsys, command, store, *MORE.get(command, []))
    assert ran.status == 3
    assert ran.out == ""
    assert said in ran.err
    assert ran.err.startswith("ztfzarr: ")
    assert ran.err.count("\n") == 1
    assert not (damaged / "out").exists()
    assert not (damaged / "to.zarr").exists()


# Arguments, exit status, what the last line on standard error says.
MISTAKES = [
    ("lss night.zarr", 2, "no command 'lss': did you mean 'ls'?"),
    ("frobnicate", 2, "no command 'frobnicate': expected one of simulate, "),
    ("ls night.zarr --nihgt 2020-08-01", 2, "Did you mean '--night'?"),
    ("ls", 2, "Missing argument 'STORE'."),
    ("ls --", 2, "Missing argument 'STORE'."),
    ("ls night.zarr two", 2, "unexpected extra argument (two)"),
    ("ls night.zarr --night 2020-13-01", 2, "'2020-13-01' is no night: expected 2020-08-01 or"),
    ("ls night.zarr --night 1.8.2020", 2, "'1.8.2020' is no night: expected 2020-08-01 or"),
    ("ls night.zarr --night 2020-08-05:2020-08-01", 2, "ends before it begins: expected FROM:TO"),
    ("run night.zarr --ccds 17", 2, "'17': expected CCDs from 1 to 16, as in 1,2 or 1-4,9"),
    ("run night.zarr --ccds 4-2", 2, "'4-2': expected CCDs from 1 to 16"),
    ("run night.zarr --workers 0", 2, "0 is not in the range x>=1."),
    ("run night.zarr --version v/1", 2, "version 'v/1': expected up to 100 letters, digits"),
    ("run night.zarr --version ..", 2, "version '..': expected up to 100"),
    ("run night.zarr --version=", 2, "version '': expected up to 100"),
    ("run night.zarr --set nonsense", 2, "'nonsense': expected section.name=value"),
    ("run night.zarr --set =", 2, "'=': expected section.name=value"),
    ("run night.zarr --set overscan.colums=1:2", 2, "overscan.colums: no such setting, expected columns"),
    (
        "run night.zarr --set overscan.columns=30:25",
        2,
        "overscan.columns: [30, 25], expected the first column",
    ),
    ("run night.zarr --set bias.skip=many", 2, "bias.skip: 'many', expected a whole number"),
    ("run night.zarr --set bias.skip=5", 2, "bias/v1 has bias.skip 0, you asked 5: use another --version"),
    ("run night.zarr --recipe missing.toml", 2, "File 'missing.toml' does not exist."),
    ("run night.zarr --recipe folder", 2, "File 'folder' is a directory."),
    (
        "run night.zarr --recipe bytes.toml",
        2,
        "--recipe bytes.toml is no TOML: 'utf-8' codec can't decode",
    ),
    ("pocket fit night.zarr --recipe bytes.toml", 2, "--recipe bytes.toml is no TOML"),
    ("stars night.zarr --recipe bytes.toml", 2, "--recipe bytes.toml is no TOML"),
    ("starflat night.zarr --recipe bytes.toml", 2, "--recipe bytes.toml is no TOML"),
    ("run night.zarr --recipe broken.toml", 2, "--recipe broken.toml is no TOML: Expected ']'"),
    ("run night.zarr --recipe wrong.toml", 2, "overscan.colums: no such setting, expected columns"),
    ("run night.zarr --scheduler nonsense:", 3, "no scheduler at nonsense:"),
    ("run newer-bias.zarr", 3, "bias/v1/zarr.json is of another format: this version reads format 1"),
    ("ls night.zarr --storage-option endpoint", 2, "expected KEY=VALUE, as in endpoint=https://s3.example.org"),
    (
        "ls s3://bucket/x --storage-option nonsense=1",
        3,
        "ztfzarr: Configuration key: 'nonsense' is not valid for store 'S3'.",
    ),
    ("ls foo://bucket/x", 3, 'ztfzarr: Generic URL error: Unable to recognise URL "foo://bucket/x"'),
    ("compare night.zarr bias v1 v9", 3, "no bias/v9 in"),
    (
        "compare night.zarr bais v1 v2",
        2,
        "'bais' is not one of 'bias', 'pocket', 'flat', 'science', 'stars', 'starflat'. Did you mean 'bias'?",
    ),
    ("drop night.zarr bias v1", 2, "nobody here to ask whether to delete bias/v1: say --yes"),
    ("drop night.zarr bias v9 --yes", 3, "no bias/v9 in"),
    ("drop night.zarr bias v1 --yes", 3, "is made with bias/v1: drop "),
    ("find night.zarr abc 2", 2, "'abc' is no angle: expected 149.52 or 09:58:04.8"),
    ("find night.zarr 10 95", 2, "expected degrees, dec within 90"),
    ("find night.zarr nan 5", 2, "expected degrees"),
    ("find night.zarr 10 5 --cutout 64", 2, "--cutout without -o, or -o without --cutout: expected both or none"),
    ("find night.zarr 10 5 --cutout 64 -o file", 2, "'file' is a file."),
    ("show night.zarr raw -o x.bmp", 2, "x.bmp: expected a name that ends in .png, .pdf, .svg, .jpg"),
    ("show night.zarr raw --ccd 2 -o file/x.png", 3, "ztfzarr: file: File exists"),
    ("show night.zarr raw --ccd 17 -o x.png", 2, "17 is not in the range 1<=x<=16."),
    ("show night.zarr raw --ccd 5 -o x.png", 3, "no raw of CCD 5: there is night"),
    ("export night.zarr science file", 2, "'file' is a file."),
    ("export night.zarr science out --name {nothing}.fits", 2, "no field 'nothing'; expected fields of ccd"),
    ("export night.zarr science out --night 2021-01-01", 3, "nothing of science/v1 in"),
    ("restore night.zarr file", 2, "'file' is a file."),
    ("restore night.zarr out --night 2021-01-01", 3, "nothing of 2021-01-01: "),
    ("verify night.zarr --ccds 5", 0, "nothing of CCD 5: "),
    ("verify night.zarr missing.fits", 1, "missing.fits: no such file or folder"),
    ("verify night.zarr folder --ccds 2", 2, "--night and --ccds choose what is checked of STORE alone"),
    ("copy night.zarr file", 3, "/file: File exists"),
    ("copy night.zarr to.zarr --night 2021-01-01:", 3, "nothing of 2021-01-01:: "),
    ("ingest night.zarr folder", 2, "nothing to ingest: expected raw files in .fits or .fits.fz"),
    ("ingest night.zarr missing", 2, "nothing to ingest: expected raw files"),
    ("ingest night.zarr file", 1, "refused file: name is not that of a raw file: expected ztf_"),
    ("simulate file", 2, "'file' is a file."),
    ("simulate sim --ccds 17", 2, "expected CCDs from 1 to 16"),
    ("simulate sim --night 2020-08-01:2020-08-02", 2, "--night: expected one night, such as 2020-08-01"),
    ("simulate sim --shape 10", 2, "'10': expected rows x columns, as in 3080x3072"),
    ("simulate sim --shape 0x0", 2, "expected rows, columns within 32-9500"),
    ("simulate sim --science 100000", 2, "do not fit into a night: expected 5000 at most"),
    ("simulate sim --sky file", 2, "file: cannot be read as FITS"),
]


@pytest.mark.parametrize(("line", "status", "said"), MISTAKES, ids=[line for line, _, _ in MISTAKES])
def test_mistakes(
    line: str, status: int, said: str, damaged: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(damaged)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    ran = Ran(capsys, *line.split(" "))
    assert ran.status == status
    assert said in ran.err.splitlines()[-1]
    assert len([text for text in ran.err.splitlines() if "rror" in text or "ztfzarr: " in text]) <= 1
    assert not (damaged / "out").exists()


def test_an_empty_name_is_no_store(capsys) -> None:
    ran = Ran(capsys, "ingest", "", "raw")
    assert (ran.status, "STORE is empty: expected a folder or a URL" in ran.err) == (2, True)


@pytest.mark.parametrize("command", ["ls", "run", "stars", "starflat", "pocket fit"])
def test_a_night_without_exposures_is_said(command: str, local: Path, tmp_path: Path, capsys) -> None:
    store = shutil.copytree(local, tmp_path / "night.zarr")
    ran = Ran(capsys, *command.split(), store, "--night", "2021-01-01")
    assert ran.status == 0
    assert ran.err == f"ztfzarr: nothing of 2021-01-01: {store} has 2020-08-01 to 2020-08-02, CCD 2\n"


@pytest.mark.parametrize(
    ("module", "line", "status", "said"),
    [
        ("matplotlib", "show STORE raw --ccd 2 -o x.png", 2, "pip install 'ztfzarr[plot]'"),
        ("matplotlib", "report STORE -o x.html", 2, "pip install 'ztfzarr[report]'"),
        ("sep", "stars STORE", 3, "pip install 'ztfzarr[stars]'"),
        ("pyarrow", "starflat STORE", 3, "pip install 'ztfzarr[stars]'"),
        ("distributed", "run STORE --scheduler tcp://127.0.0.1:9", 3, "pip install 'ztfzarr[distributed]'"),
        ("boto3", "ls s3://bucket/x --storage-option profile=x", 3, 'pip install "ztfzarr[aws]"'),
    ],
)
def test_missing_extras(module: str, line: str, status: int, said: str, local: Path, tmp_path: Path) -> None:
    store = shutil.copytree(local, tmp_path / "night.zarr")
    hidden = f"import sys; sys.modules[{module!r}] = None; from ztfzarr.cli import main; main(sys.argv[1:])"
    ran = subprocess.run(
        [sys.executable, "-c", hidden, *line.replace("STORE", str(store)).split()],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert ran.returncode == status, ran.stderr
    assert said.replace('"', "'") in ran.stderr.replace('"', "'").splitlines()[-1]
    assert "Traceback" not in ran.stderr
    if module in ("sep", "pyarrow"):
        assert len(ran.stderr.splitlines()) == 1  # not one an exposure
        assert not {"stars", "starflat"} & {path.name for path in store.iterdir()}


def command_line(*arguments: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "ztfzarr.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, **options)


@pytest.mark.parametrize("line", ["ls STORE", "info STORE --json", "--help", "compare STORE bias v1 v1"])
def test_a_closed_pipe_is_no_error(line: str, local: Path) -> None:
    command = [sys.executable, "-m", "ztfzarr.cli", *line.replace("STORE", str(local)).split()]
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (0, b"")


@pytest.mark.skipif(not DEVICE_FULL.exists(), reason="no /dev/full here")
def test_a_full_disk_is_said(local: Path) -> None:
    with DEVICE_FULL.open("wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "ztfzarr.cli", "info", str(local)],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (ran.returncode, ran.stderr) == (3, b"ztfzarr: No space left on device\n")


def test_a_terminal_without_utf8(local: Path, tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    ran = command_line(
        "show", local, "raw", "--ccd", 2, "-o", picture, env=os.environ | {"PYTHONIOENCODING": "iso8859-5"}
    )
    assert ran.returncode == 0, ran.stderr
    assert b" ? CCD 2" in ran.stdout
    assert picture.exists()


def test_ctrl_c(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "ztfzarr.cli",
        "simulate",
        str(tmp_path),
        "--science",
        "400",
        "--workers",
        "1",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.rglob("*.fits.fz")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == b""
    assert err.splitlines()[-1] == b"ztfzarr: interrupted; run the command again to finish"
    assert b"Traceback" not in err


@pytest.mark.parametrize(
    ("given", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_on_terminals_only(
    given: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    from ztfzarr.cli.tables import new_table, print_table

    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    table = new_table("made")
    table.add_row("[yellow]1[/]")
    print_table(table)
    assert capsys.readouterr().out == "made\n   1\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    print_table(table)
    assert ("\x1b[33m" in capsys.readouterr().out) is coloured


def commands() -> list[tuple[str, click.Command]]:
    """Every command, those of groups too, by what one types."""
    found, context = [], click.Context(cli)
    todo = [(name, cli.get_command(context, name)) for name in cli.list_commands(context)]
    while todo:
        name, command = todo.pop(0)
        assert command is not None, name
        if isinstance(command, click.Group):
            todo += [
                (f"{name} {inner}", command.get_command(context, inner))
                for inner in command.list_commands(context)
            ]
        else:
            found.append((name, command))
    return found


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_has_examples_and_json(name: str, capsys) -> None:
    ran = Ran(capsys, *name.split(), "--help")
    assert ran.status == 0
    assert "Example" in ran.out
    examples = ran.out.split("Example")[-1]
    assert f"  ztfzarr {name} " in examples
    assert "--json" in ran.out
    assert all(len(line) <= 115 for line in ran.out.splitlines())


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_examples_are_accepted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sciimg").mkdir()  # options want files and folders that exist
    for there in ("gaia.fits", "stars.fits"):
        (tmp_path / there).touch()
    monkeypatch.chdir(tmp_path)
    command = dict(commands())[name]
    lines = [
        line.strip() for line in (command.epilog or "").splitlines() if line.strip().startswith(f"ztfzarr {name} ")
    ]
    assert lines
    for line in lines:
        arguments = shlex.split(line, comments=True)[1 + len(name.split()) :]
        command.make_context(name, arguments, resilient_parsing=False)


@pytest.mark.parametrize(
    ("typed", "incomplete", "expected"),
    [
        ([], "re", {"repair", "report", "restore"}),
        (["ls", "night.zarr"], "--ni", {"--night"}),
        (["show", "night.zarr"], "fl", {"flat"}),
    ],
)
def test_completion(typed: list[str], incomplete: str, expected: set[str]) -> None:
    found = {item.value for item in ShellComplete(cli, {}, "ztfzarr", "_X").get_completions(typed, incomplete)}
    assert found == expected


@pytest.mark.parametrize(("term", "kind"), [("dumb", "Lines"), ("xterm", "Bar")])
def test_bars_only_where_a_terminal_can_draw_them(term: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", term)
    with progress(quiet=False) as shown:
        assert type(shown).__name__ == kind


SCRIPT = Path(sys.executable).with_name("ztfzarr")


@pytest.mark.skipif(not SCRIPT.exists(), reason="not installed as a script")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_of_shells(shell: str) -> None:
    def asked(what: str, **given: str) -> str:
        environment = os.environ | {"_ZTFZARR_COMPLETE": f"{shell}_{what}"} | given
        return subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, check=True).stdout

    assert "_ztfzarr_completion" in asked("source")
    word = {"COMP_WORDS": "ztfzarr res", "COMP_CWORD": "res" if shell == "fish" else "1"}
    assert "restore" in asked("complete", **word)
    assert "repair" not in asked("complete", **word)


@pytest.mark.skipif(not (SCRIPT.exists() and shutil.which("bash")), reason="no bash, or not installed as a script")
def test_completion_in_bash() -> None:
    lines = """
        eval "$(_ZTFZARR_COMPLETE=bash_source ztfzarr)"
        COMP_WORDS=(ztfzarr simulate sim --sc) COMP_CWORD=3
        _ztfzarr_completion ztfzarr
        echo "${COMPREPLY[@]}"
    """
    path = f"{SCRIPT.parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-c", lines], env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert ran.stdout.split() == ["--science"], ran.stderr


def test_json_is_json(local: Path, capsys) -> None:
    for command in ("ls", "info"):
        assert json.loads(Ran(capsys, command, local, "--json").out)
