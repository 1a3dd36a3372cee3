"""The daily job and the three pipelines of `examples/`: under 30 lines each, and run."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from test_export_models import tower

import dask_embstab as es

EXAMPLES = Path(__file__).parent.parent / "examples"
JOB, PIPELINES = EXAMPLES / "daily_job", EXAMPLES / "pipelines"
SCRIPTS = (JOB / "daily.py", *sorted(PIPELINES.glob("*.py")))
RNG = np.random.default_rng(0)
T, W = RNG.normal(size=(400, 4)), RNG.normal(size=(300, 4))


def module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def of_day(n: int) -> tuple[Any, Any]:
    """The same scores in other axes: what a training of day n leaves; on day 1 a few rows moved."""
    A = np.random.default_rng(n).normal(size=(4, 4))
    items = T.copy()
    items[:7] *= -1 if n >= 1 else 1
    return items @ A, W @ np.linalg.inv(A).T


def parquet(path: Path, rows: Any) -> Path:
    """Two part files of ids and vectors, as Spark writes them."""
    path.mkdir(parents=True)
    for part, (low, high) in enumerate(((0, 150), (150, len(rows)))):
        columns = {"id": np.arange(low, high), "vector": list(rows[low:high])}
        pq.write_table(pa.table(columns), path / f"part-{part}.parquet")
    return path


def read(folder: Path) -> dict[int, Any]:
    """Vectors by id of an exported table."""
    rows = pa.concat_tables([pq.read_table(file) for file in sorted(folder.glob("*.parquet"))])
    return dict(zip(rows["id"].to_pylist(), rows["vector"].to_pylist(), strict=True))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_have_less_than_30_lines(script: Path) -> None:
    assert len(script.read_text().splitlines()) < 30


def test_three_days_twice_one_day_held(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second of three days comes with shuffled rows: it is held both times, the head stays,
    the alarm is told; what was published is not published again, and exports are the same.
    """
    daily = module(JOB / "daily.py").daily
    days = {"d1": of_day(0), "d2": (RNG.permutation(T), RNG.permutation(W)), "d3": of_day(1)}
    places = {
        day: [
            str(parquet(tmp_path / day / key, table))
            for key, table in zip(("items", "users"), tables, strict=True)
        ]
        for day, tables in days.items()
    }
    out, series = tmp_path / "out", tmp_path / "series"
    out.mkdir()
    once: dict[str, Any] = {}
    for again in (False, True):
        for day, (items, users) in places.items():
            code = daily(str(series), day, items, users, str(out))
            output = capsys.readouterr()
            assert code == (3 if day == "d2" else 0)
            assert ("ALARM d2 is held" in output.err) is (day == "d2")
            assert (out / "report.html").stat().st_size > 1000
            if day != "d2":
                changed = read(out / f"{day}-changed" / "items")
                assert changed == once.setdefault(day, changed)
        assert [row.run for row in es.Series(series).log().versions] == ["d1", "d3"], again
    assert set(once["d1"]) == set(range(400))
    assert set(once["d3"]) == set(range(7)), "what a store must rewrite"
    assert es.Series(series).head().version == 2


def test_a_batch_of_parquet_comes_back_in_the_old_coordinates(tmp_path: Path) -> None:
    for name, n in (("old", 0), ("new", 2)):
        for key, rows in zip(("items", "users"), of_day(n), strict=True):
            parquet(tmp_path / name / key, rows)
    (tmp_path / "out").mkdir()
    module(PIPELINES / "parquet_batch.py").main(*(str(tmp_path / n) for n in ("old", "new", "out")))
    items, users = (read(tmp_path / "out" / "parquet" / key) for key in ("items", "users"))
    scores = np.array([items[n] for n in range(400)]) @ np.array([users[n] for n in range(300)]).T
    new, queries = of_day(2)
    np.testing.assert_allclose(scores, new @ queries.T, atol=1e-9)
    old = es.open_run(tmp_path / "out" / "old.zarr")
    likeness = es.evaluate(old, es.open_run(tmp_path / "out" / "stable.zarr"))
    assert likeness.items.mean_cosine > 0.5
    assert (tmp_path / "out" / "report.html").exists()


def test_a_two_tower_model_answers_in_the_stored_space(tmp_path: Path) -> None:
    """The tower with the transform behind it gives the user rows that the series stores."""
    import onnxruntime

    main = module(PIPELINES / "two_tower_daily.py").main
    features = RNG.normal(size=(300, 5)).astype(np.float32)
    for n, day in enumerate(("d1", "d2")):
        A = np.linalg.matrix_power(np.random.default_rng(1).normal(size=(4, 4)), n)
        start = tower(tmp_path / "tower.onnx", turned=np.linalg.inv(A).T)
        session = onnxruntime.InferenceSession(start.read_bytes())
        np.save(tmp_path / "items.npy", (T @ A).astype(np.float32))
        np.save(tmp_path / "users.npy", session.run(None, {"features": features})[0])
        (tmp_path / "out").mkdir(exist_ok=True)
        names = ("series", day, "items.npy", "users.npy", "tower.onnx", "out")
        main(*(name if name == day else str(tmp_path / name) for name in names))
    extended = onnxruntime.InferenceSession((tmp_path / "out" / "tower.onnx").read_bytes())
    (output,) = extended.run(None, {"features": features})
    stored = es.Series(tmp_path / "series").open().users.vectors.compute()
    np.testing.assert_allclose(output, stored, atol=1e-4 * np.abs(stored).max())
    assert len(read(tmp_path / "out" / "items" / "items")) == 400


def test_queries_of_a_new_text_model_find_the_documents_of_the_old_index(tmp_path: Path) -> None:
    Q = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    for name, rows in (("old", T), ("new", T @ Q)):
        parquet(tmp_path / name, rows)
    np.save(tmp_path / "queries.npy", (T @ Q)[[7, 300]])
    places = (str(tmp_path / name) for name in ("old", "new", "queries.npy", "."))
    results = module(PIPELINES / "text_index.py").main(*places)
    assert "documents" in (tmp_path / "report.html").read_text()
    assert [row[0] for row in np.asarray(results).tolist()] == [7, 300]


def shell_command(line: str) -> list[str]:
    return shlex.split(line.partition("&& D=")[2].partition("&& ")[2])


def test_cron_has_one_line_that_calls_the_job() -> None:
    lines = (JOB / "crontab").read_text().splitlines()
    jobs = [line for line in lines if line[0] not in "#M"]
    assert len(jobs) == 1
    assert re.match(r"(\S+\s+){5}cd /", jobs[0])
    command = shell_command(jobs[0])
    assert command[command.index("python") + 1] == "daily.py"
    assert "%" not in re.sub(r"\\%", "", jobs[0]), "cron ends a command at a bare %"


def test_the_workflow_is_whole_and_calls_the_job() -> None:
    flow = yaml.safe_load((JOB / "github_actions.yml").read_text())
    (job,) = flow["jobs"].values()
    calls = [step["run"] for step in job["steps"] if "daily.py" in step.get("run", "")]
    assert len(calls) == 1
    assert all({"uses", "run"} & step.keys() for step in job["steps"])
    (line,) = [line for line in calls[0].splitlines() if "daily.py" in line]
    function = next(
        node
        for node in ast.parse((JOB / "daily.py").read_text()).body
        if isinstance(node, ast.FunctionDef)
    )
    assert len(shlex.split(line)) - 2 == len(function.args.args)


def decorator(*given: Any, **_: Any) -> Any:
    """A decorator that leaves functions as they are, with or without options."""
    return given[0] if given and callable(given[0]) else lambda function: function


def test_the_dag_fails_on_a_held_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run with stand-ins for Airflow's decorators and for the script."""
    stop = type("AirflowFailException", (Exception,), {})
    modules = {
        "airflow": {},
        "airflow.exceptions": {"AirflowFailException": stop},
        "airflow.sdk": {"dag": decorator, "task": decorator},
    }
    for name, names in modules.items():
        made = types.ModuleType(name)
        vars(made).update(names)
        monkeypatch.setitem(sys.modules, name, made)
    codes, called = [0, 3, 1], list[list[str]]()

    def run(command: list[str], **_: Any) -> Any:
        called.append(command)
        return types.SimpleNamespace(returncode=codes.pop(0))

    monkeypatch.setattr("subprocess.run", run)
    made = module(JOB / "airflow_dag.py")
    assert called[0][1].endswith("daily.py")
    assert len(called[0]) == 2 + 5
    with pytest.raises(stop, match="is held"):
        made.daily_embeddings()
    with pytest.raises(RuntimeError, match="ended with 1"):
        made.daily_embeddings()


def test_the_flow_fails_on_a_held_day(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = [0, 3]
    modules = {
        "daily": {"daily": lambda *_: codes.pop(0)},
        "prefect": {"flow": decorator, "task": decorator},
        "prefect.states": {"Failed": lambda message: ("failed", message)},
    }
    for name, names in modules.items():
        made = types.ModuleType(name)
        vars(made).update(names)
        monkeypatch.setitem(sys.modules, name, made)
    flow = module(JOB / "prefect_flow.py").daily_embeddings
    assert flow("2026-01-02") == "2026-01-02"
    assert flow("2026-01-03") == ("failed", "2026-01-03 is held; see out/report.html")
