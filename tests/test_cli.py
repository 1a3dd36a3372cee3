"""The command line: every command, its JSON, its exit codes, its one line of error, its bars."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from oracle import assert_close, chunk_file, hidden, snapshot, vectors_of, world

import dask_embstab as es
from dask_embstab import api
from dask_embstab.cli.main import main

T, W = world(61)
MakeRun = Callable[..., es.Run]
Run = Callable[..., tuple[int, str, str]]
SCRIPT = Path(sys.executable).with_name("embstab")
COMMANDS = {"stabilize", "fit", "apply", "evaluate", "inspect", "lookup", "demo"}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("stabilize", ...)`` gives the exit code, stdout and stderr of the command in this
    process.
    """

    def call(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments], prog_name="embstab")
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def runs(make_run: MakeRun, tmp_path: Path) -> Path:
    """A folder with a reference, a run and a run without users."""
    B, A = (rows + 0.3 * other for rows, other in zip((T, W), world(62), strict=True))
    ids = {"item_ids": np.arange(60) + 5, "user_ids": [f"u{i}" for i in range(90)]}
    es.stabilize(make_run("raw", B, A, **ids), tmp_path / "reference.zarr")
    make_run("day", T, W, **ids)
    make_run("items", T)
    return tmp_path


def done(result: tuple[int, str, str]) -> dict[str, Any]:
    """The JSON object of a command that ended well and said nothing else."""
    code, out, err = result
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    return dict(json.loads(out))


# --- every command


def test_stabilize_says_what_the_contract_says(runs: Path, run: Run) -> None:
    printed = done(
        run(
            "stabilize",
            runs / "day.zarr",
            runs / "out",
            "--reference",
            runs / "reference.zarr",
            "--json",
        )
    )
    assert (printed["rank"], printed["method"], printed["balance"]) == (4, "gram", "rows")
    assert (printed["items"]["rows"], printed["items"]["matched"]) == (60, 60)
    assert (printed["users"]["rows"], printed["users"]["matched"]) == (90, None)
    assert {"error", "relative_error", "gram_gap", "bound", "nuclear_bound"} <= set(
        printed["alignment"]
    )
    assert len(printed["singular_values"]) == 4
    assert 0 < printed["seconds"] < 20
    transformed = es.open_run(runs / "out")
    items, reference = vectors_of(transformed), vectors_of(es.open_run(runs / "reference.zarr"))
    assert_close(printed["alignment"]["error"], np.linalg.norm(items - reference), 1e-6)
    assert_close(items @ vectors_of(transformed, "users").T, T @ W.T, 1e-10)


def test_stabilize_without_a_reference_or_users(runs: Path, run: Run) -> None:
    printed = done(run("stabilize", runs / "day.zarr", runs / "a", "--json"))
    assert printed["alignment"] is None
    assert printed["items"]["matched"] is None
    printed = done(run("stabilize", runs / "items.zarr", runs / "b", "--json"))
    assert (printed["users"], printed["balance"], printed["keep"]) == (None, None, "geometry")


def test_every_option_of_stabilize_is_taken(runs: Path, run: Run) -> None:
    day, reference = runs / "day.zarr", runs / "reference.zarr"
    options = [
        "--keep",
        "scores",
        "--align-on",
        "both",
        "--method",
        "qr",
        "--balance",
        "rows",
        "--min-matched",
        "60",
    ]
    printed = done(
        run(
            "stabilize",
            day,
            runs / "a",
            "--reference",
            reference,
            *options,
            "--dtype",
            "float32",
            "--json",
        )
    )
    assert (printed["method"], printed["users"]["matched"]) == ("qr", 90)
    assert es.open_run(runs / "a").items.dtype == np.float32
    printed = done(
        run("stabilize", day, runs / "a", "--rank", "2", "--width", "3", "--overwrite", "--json")
    )
    assert (printed["rank"], es.open_run(runs / "a").items.d) == (2, 3)
    done(
        run(
            "stabilize",
            day,
            runs / "a",
            "--keep",
            "geometry",
            "--center",
            "--overwrite",
            "--resume",
            "--json",
        )
    )
    made = es.open_run(runs / "a").transform
    assert made is not None
    assert made.items_offset is not None


def test_matched_new_and_unmatched_rows_are_counted(
    runs: Path, run: Run, make_run: MakeRun
) -> None:
    ids = np.arange(60) + 15
    ids[3] = ids[2]
    make_run("later", T, W, item_ids=ids, user_ids=[f"u{i}" for i in range(90)])
    command = [
        "stabilize",
        runs / "later.zarr",
        runs / "out",
        "--reference",
        runs / "reference.zarr",
        "--json",
    ]
    code, _, err = run(*command)
    assert code == 2
    assert "repeats 1 of them" in err
    code, out, err = run(
        *command, "--duplicates", "first", "--scratch", runs, "--join-memory", "8MiB"
    )
    assert (code, err.count("\n")) == (0, 2), "repeated ids, and ids of other rows"
    assert "the first row of each counts" in err
    printed = json.loads(out)["items"]
    assert (printed["matched"], printed["new"], printed["unmatched_reference"]) == (49, 11, 11)
    assert 0 < printed["unmatched_reference_energy"] < 1
    stored = es.open_run(runs / "out").transform
    assert stored is not None
    assert (
        stored.diagnostics["items"]["unmatched_reference_energy"]
        == printed["unmatched_reference_energy"]
    )
    code, out, _ = run(*[*command[:-1], "--duplicates", "first", "--overwrite"])
    assert all(
        line in out
        for line in (
            "matched: 49",
            "new: 11",
            "unmatched_reference: 11",
            "unmatched_reference_energy: 0.",
        )
    )


def test_fit_then_apply_is_stabilize(runs: Path, run: Run) -> None:
    day, reference = runs / "day.zarr", ("--reference", runs / "reference.zarr")
    done(run("stabilize", day, runs / "at-once", *reference, "--json"))
    printed = done(run("fit", day, runs / "t.npz", *reference, "--json"))
    assert {"rank", "method", "items", "users", "alignment", "seconds"} <= set(printed)
    printed = done(run("apply", runs / "t.npz", day, runs / "in-two", "--json"))
    assert printed["items"]["rows"] == 60
    for key in ("items", "users"):
        np.testing.assert_array_equal(
            vectors_of(es.open_run(runs / "in-two"), key),
            vectors_of(es.open_run(runs / "at-once"), key),
        )
    done(run("apply", runs / "in-two", day, runs / "again", "--json"))
    assert vectors_of(es.open_run(runs / "again")).shape == (60, 4)


def test_evaluate_says_what_the_contract_says(runs: Path, run: Run) -> None:
    printed = done(
        run(
            "evaluate",
            runs / "day.zarr",
            runs / "reference.zarr",
            "--k",
            "7",
            "--users",
            "20",
            "--json",
        )
    )
    for key, n in (("items", 60), ("users", 90)):
        assert printed[key]["matched"] == n
        assert {"mean_cosine", "norm_ratio"} <= set(printed[key])
    assert printed["rank_correlation"]["k"] == 7
    assert 0 <= printed["rank_correlation"]["rbo"] <= 1
    metrics = es.evaluate(runs / "day.zarr", runs / "reference.zarr", k=7, users=20)
    assert printed == json.loads(json.dumps(metrics.to_dict()))
    printed = done(run("evaluate", runs / "items.zarr", runs / "items.zarr", "--json"))
    assert (printed["users"], printed["rank_correlation"]) == (None, None)


def test_inspect_describes_a_run(runs: Path, run: Run) -> None:
    printed = done(run("inspect", runs / "reference.zarr", "--json"))
    assert printed["users"] == {
        "rows": 90,
        "components": 4,
        "dtype": "float64",
        "chunk_rows": 16,
        "ids": "string",
    }
    assert printed["transform"]["rank"] == 4
    assert done(run("inspect", runs / "items.zarr", "--json"))["users"] is None


def test_without_json_a_person_reads_it(runs: Path, run: Run) -> None:
    for command in (
        ("inspect", runs / "day.zarr"),
        ("evaluate", runs / "day.zarr", runs / "day.zarr"),
    ):
        code, out, err = run(*command)
        assert (code, err) == (0, "")
        assert "items:" in out
        assert "{" not in out


def test_a_warning_is_one_line_on_stderr(runs: Path, run: Run) -> None:
    arguments = ("--reference", runs / "reference.zarr", "--balance", "gramians", "--json")
    code, out, err = run("stabilize", runs / "day.zarr", runs / "out", *arguments)
    assert code == 0
    assert re.fullmatch(r"warning: --balance gramians was asked for[^\n]*\n", err)
    assert json.loads(out)["balance"] == "gramians"


def test_every_command_takes_json_and_explains_itself(run: Run) -> None:
    assert set(main.commands) >= COMMANDS
    for name, command in main.commands.items():
        if isinstance(command, click.Group):
            continue
        code, out, _ = run(name, "--help")
        assert code == 0
        assert "--json" in out
        assert "None]" not in out  # a range without bounds is no range
        assert command.help
    assert run("--version")[0] == 0


# --- errors


def failed(result: tuple[int, str, str], code: int, *says: str) -> None:
    exit_code, out, err = result
    assert (exit_code, out) == (code, "")
    assert re.fullmatch(r"error: [^\n]+\n", err), err
    for words in says:
        assert re.search(words, err), err


def test_bad_input_ends_with_2(runs: Path, run: Run) -> None:
    before = snapshot(runs)
    day, out = runs / "day.zarr", runs / "out"
    failed(run("stabilize", runs / "none", out), 2, "nothing at .*none")
    failed(run("stabilize", runs / "none", out, "--json"), 2, "nothing at .*none")
    failed(run("stabilize", day, out, "--reference", runs / "none"), 2, "nothing at .*none")
    failed(run("stabilize", day, runs / "items.zarr"), 2, "exists already.*--overwrite")
    failed(run("stabilize", runs / "items.zarr", out, "--keep", "scores"), 2, "needs users")
    for address in (
        "nowhere://at-all",
        "tls://127.0.0.1:8786",
        "tcp://127.0.0.1:99999",
        "tcp://127.0.0.1",
    ):
        failed(
            run("stabilize", day, out, "--scheduler", address),
            2,
            f"no Dask scheduler answers at {address}",
        )
    failed(run("stabilize", day, "/proc/out"), 2, "a folder that can be written in; /proc")
    failed(run("fit", day, runs / "none" / "t.npz"), 2, "folder")
    failed(run("apply", runs / "t.npz", day, out), 2, "no transform at")
    failed(run("evaluate", day, runs), 2, "not a Zarr store|a run is a Zarr group")
    failed(run("inspect", runs), 2, "not a Zarr store|a run is a Zarr group")
    failed(run("inspect", "/"), 2, "not a Zarr store")
    assert snapshot(runs) == before


def test_damage_ends_with_2(runs: Path, run: Run) -> None:
    file = chunk_file(runs / "day.zarr", "items", 1)
    file.write_bytes(file.read_bytes()[:-9])
    failed(run("stabilize", runs / "day.zarr", runs / "out"), 2, "c/1/0", "restore")
    assert not (runs / "out").exists()
    assert not hidden(runs)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["stabilize", "a"], "Missing argument 'OUT'"),
        (["stabilize", "a", "b", "c"], "unexpected extra argument"),
        (["stabilize", "a", "b", "--keep", "cosines"], "'cosines' is not one of"),
        (["stabilize", "a", "b", "--rank", "0"], "--rank"),
        (["stabilize", "a", "b", "--nonsense"], "No such option"),
        (["report", "a"], "where to write the page"),
        (["series", "rebase", "a"], "give --onto VERSION, --onto RUN or --back"),
        (["nonsense"], "No such command"),
        (["--nonsense"], "No such option"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_line(run: Run, arguments: list[str], says: str) -> None:
    failed(run(*arguments), 2, says)


@pytest.mark.parametrize("error", [RuntimeError("the disk\nis on fire"), PermissionError("no")])
def test_anything_else_ends_with_1(
    runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(api, "stabilize", fail)
    failed(run("stabilize", runs / "day.zarr", runs / "out"), 1, type(error).__name__)


# --- as a process of its own


def process(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(a) for a in arguments], capture_output=True, text=True, check=False, **options
    )


def test_the_installed_program(runs: Path) -> None:
    arguments = "stabilize", runs / "day.zarr", runs / "out", "--json"
    ended = process(SCRIPT, *arguments)
    assert (ended.returncode, ended.stderr) == (0, ""), "no bar where there is no terminal"
    assert json.loads(ended.stdout)["rank"] == 4
    ended = process(Path(sys.executable).with_name("dask"), "embstab", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(r"error: [^\n]*exists already[^\n]*\n", ended.stderr)


@pytest.mark.parametrize("arguments", [("--help",), ("series", "log", "SERIES", "--json")])
def test_what_needs_no_rows_imports_neither_numpy_nor_dask(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    es.Series.init(tmp_path / "SERIES")
    code = (
        "import sys, atexit; atexit.register(lambda: print(*sorted({m.split('.')[0] for m in"
        " sys.modules}), file=sys.stderr)); from dask_embstab.cli.main import main; main()"
    )
    given = [str(tmp_path / word) if word == "SERIES" else word for word in arguments]
    ended = process(sys.executable, "-c", code, *given)
    assert ended.returncode == 0
    assert ended.stdout.strip() == '{"versions": []}' or "stabilize" in ended.stdout
    assert not {"numpy", "dask", "zarr", "xarray", "scipy", "distributed", "rich"} & set(
        ended.stderr.split()
    )


def on_a_terminal(*arguments: Any) -> tuple[int, str, str]:
    """Exit code and stdout of a program whose stderr is a terminal, and what it drew there."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen(
        [str(a) for a in arguments],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment,
        text=True,
    ) as running:
        os.close(theirs)
        drawn, terminal = b"", select.poll()  # select() has no room for descriptors beyond 1023
        terminal.register(ours, select.POLLIN)
        while running.poll() is None or terminal.poll(0):
            if terminal.poll(100):
                try:
                    drawn += os.read(ours, 65536)
                except OSError:  # the terminal is gone with the last process on it
                    break
        assert running.stdout is not None
        out = running.stdout.read()
    os.close(ours)
    return running.returncode, out, drawn.decode()


def test_a_terminal_shows_bars(runs: Path) -> None:
    reference = ("--reference", runs / "reference.zarr")
    code, out, drawn = on_a_terminal(
        SCRIPT, "stabilize", runs / "day.zarr", runs / "out", *reference
    )
    assert code == 0
    assert "rank: 4" in out
    assert "━" in drawn
    for label in ("fit: reading", "apply"):
        assert re.search(rf"{label}.*2/2", drawn), drawn
    assert "Traceback" not in drawn


STRANGER = """
import sys, numpy as np, zarr
for day, path in enumerate(sys.argv[1:]):
    rng = np.random.default_rng(day)
    axes = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    root = zarr.open_group(path, mode="w")
    for name, dim, n in (("items", "item", 500), ("users", "user", 800)):
        table = root.create_group(name)
        vectors = table.create_array("vectors", shape=(n, 8), chunks=(128, 8), dtype="float32",
                                     dimension_names=(dim, "component"))
        order, alike = rng.permutation(n), np.random.default_rng(n).normal(size=(n, 8))
        vectors[:] = ((alike + 0.3 * rng.normal(size=(n, 8))) * 0.8 ** np.arange(8))[order] @ axes
        ids = table.create_array("id", shape=(n,), chunks=(128,), dtype=str, dimension_names=(dim,))
        ids[:] = np.array([f"{dim}-{i}" for i in order], dtype=object)
"""


def test_a_stranger_s_runs(tmp_path: Path, run: Run) -> None:
    """Plain zarr-python by someone who only read the layout: no attributes of ours, default codecs,
    ids as text.
    """
    before, second, first, out = (
        tmp_path / name for name in ("1.zarr", "2.zarr", "first.zarr", "second.zarr")
    )
    process(sys.executable, "-W", "ignore", "-c", STRANGER, before, second)
    done(run("stabilize", before, first, "--json"))
    ended = process(SCRIPT, "stabilize", second, out, "--reference", first, "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["items"]["matched"] == 500
    raw, transformed = es.open_run(second), es.open_run(out)
    scores = vectors_of(raw, "users").astype(float) @ vectors_of(raw).astype(float).T
    assert_close(
        vectors_of(transformed, "users").astype(float) @ vectors_of(transformed).astype(float).T,
        scores,
        1e-6,
    )
    assert transformed.items.ids.compute().tolist() == raw.items.ids.compute().tolist()
    assert es.evaluate(first, out).items.mean_cosine > es.evaluate(before, second).items.mean_cosine
