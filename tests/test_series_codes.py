"""Codes of a series: written with the vectors in one read, of one frozen code, never mixed."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_reads
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import rotation

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.core.codes.code import BITS, Code
from dask_embstab.core.codes.product import ProductCode
from dask_embstab.core.codes.row_code import renumbered, turned
from dask_embstab.passes.apply import transform_run
from dask_embstab.series.log.codes import codes_in, stamps
from dask_embstab.series.log.thresholds import THRESHOLDS
from dask_embstab.series.publish.gates import held, judge

reads = test_reads.reads
N, D, DAYS = 400, 8, 3
PQ: dict[str, Any] = {"code": "pq4", "code_force": True, "gates": {"code_error": None}}
SERIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "int8": {"code": "int8"},
    "int5": {"code": "int5", "code_rotate": True},
    "pq": PQ,
}
Array = np.ndarray[Any, Any]


def day(number: int) -> tuple[Array, Array]:
    """Items and users of a slowly changing world, in axes of that day alone."""
    rng = np.random.default_rng(7)
    T, W = rng.normal(size=(N, D)), rng.normal(size=(150, D))
    later = np.random.default_rng(number)
    T, W = (x + 0.02 * number * later.normal(size=x.shape) for x in (T, W))
    A = np.linalg.qr(later.normal(size=(D, D)))[0]
    return T @ A, W @ A


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of some days, in small chunks, and series of them without and with codes."""
    made = tmp_path_factory.mktemp("codes")
    for number in range(DAYS):
        ids: dict[str, Any] = {"item_ids": np.arange(N) * 3, "user_ids": np.arange(150)}
        tables = [x.astype(np.float32) for x in day(number)]
        es.create_run(made / f"day-{number}.zarr", *tables, chunk_rows=96, **ids)
    for name, code in SERIES.items():
        series = es.Series.init(made / name, **code)
        for number in range(DAYS if name == "pq" else 2):
            series.add(made / f"day-{number}.zarr")
    return made


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Callable[[str], es.Series]:
    """A series of the folder, to be changed."""
    return lambda name: es.Series(shutil.copytree(folder / name, tmp_path / name))


def main_exit(words: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words, prog_name="embstab")
    return int(ended.value.code or 0)


def read(run: es.Run, key: str = "items") -> Array:
    return np.asarray(run.table(key).vectors)


def recorded(series: es.Series, number: int) -> Any:
    return series.show(number).figures["codes"]


def code_of(run: es.Run, key: str = "items") -> Any:
    return run.table(key).source.code


def codes_at(run: es.Run, key: str = "items") -> Array:
    return np.asarray(run.group[f"{key}/codes"][...])


# --- one read, the same bits


@pytest.mark.parametrize("name", ["int8", "pq"])
def test_vectors_are_the_same_bits_with_and_without_a_code(folder: Path, name: str) -> None:
    for number in (1, 2):
        ours, plain = (es.Series(folder / one).open(number) for one in (name, "plain"))
        for key in ("items", "users"):
            np.testing.assert_array_equal(read(ours, key), read(plain, key))


@pytest.mark.parametrize("name", ["int8", "int5", "pq"])
def test_codes_of_the_publish_are_those_that_compress_makes_afterwards(
    folder: Path, tmp_path: Path, name: str
) -> None:
    series = es.Series(folder / name)
    options: dict[str, Any] = {"like": series.codes(1)}
    if name != "pq":  # made of nothing but its name
        options = {"code": name, "rotate": series.settings.code_rotate}
    for number in (1, 2):
        small = es.compress(series.open(number), tmp_path / f"{number}.zarr", **options)
        for key in ("items", "users"):
            np.testing.assert_array_equal(codes_at(small, key), codes_at(series.open(number), key))
            np.testing.assert_array_equal(read(small, key), read(series.codes(number), key))


@pytest.mark.usefixtures("small_tasks")
@settings(max_examples=5)
@given(rows=st.integers(7, 130), code=st.sampled_from(sorted(BITS)))
def test_any_chunking_of_a_delivery_gives_the_same_codes(
    tmp_path_factory: pytest.TempPathFactory, rows: int, code: str
) -> None:
    place = tmp_path_factory.mktemp("chunking")
    T, seen, fitted = day(1)[0].astype(np.float32), [], None
    for chunk_rows in (rows, N):
        run = es.create_run(place / f"{chunk_rows}.zarr", T, chunk_rows=chunk_rows, sync=False)
        fitted = fitted or es.fit(run)
        options: dict[str, Any] = dict.fromkeys(("name", "dtype")) | {"inputs": ()}
        options |= dict.fromkeys(("overwrite", "resume", "sync"), False)
        coded = transform_run(
            fitted, run, place / f"out-{chunk_rows}.zarr", codes={"items": Code(code, D)}, **options
        )
        seen.append((codes_at(coded), read(coded)))
    for one, other in zip(*seen, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("small_tasks")
def test_a_code_costs_no_read_of_the_delivery(
    folder: Path, tmp_path: Path, reads: Counter[tuple[str, int]]
) -> None:
    seen = []
    for name, code in (("plain", {}), ("coded", {"code": "int8"})):
        series = es.Series.init(tmp_path / name, **code)
        reads.clear()
        series.add(folder / "day-0.zarr")
        seen.append({at: n for at, n in reads.items() if at[0].startswith(str(folder / "day"))})
    assert seen[0] == seen[1]


def test_xarray_opens_vectors_and_codes_of_one_group(folder: Path) -> None:
    run = es.Series(folder / "pq").open(2)
    table = xr.open_zarr(run.path, group="items")
    assert set(table) == {"vectors", "codes", "codebook"}
    parts = zip(table["codebook"].values, table["codes"].values.T, strict=True)
    rows = np.concatenate([entries[numbers] for entries, numbers in parts], axis=1)
    np.testing.assert_array_equal(rows.astype(np.float32), read(es.Series(folder / "pq").codes(2)))


# --- one frozen code


@pytest.mark.parametrize("name", ["int8", "pq"])
def test_every_run_has_the_code_of_the_first(folder: Path, name: str) -> None:
    series = es.Series(folder / name)
    known = [recorded(series, version.version) for version in series.log().versions]
    assert {one["made"] for one in known} == {1}
    assert all(one["stamp"] == known[0]["stamp"] for one in known)
    for key in ("items", "users"):
        made = known[0]["tables"][key]
        assert made["error"] == made["error_when_made"] > 0
        for one in known[1:]:
            result = one["tables"][key]
            assert result["error_when_made"] == made["error"]
            assert result["agreement"] > result["agreement_by_chance"]
    series.codes(2, like=1)


def test_recorded_figures_are_those_of_numpy(folder: Path) -> None:
    series = es.Series(folder / "pq")
    result = recorded(series, 3)["tables"]["items"]
    x, y = read(series.open(3)), read(series.open(2))
    decoded = read(series.codes(3))
    error = np.linalg.norm(decoded - x.astype(np.float64)) / np.linalg.norm(x)
    assert result["error"] == pytest.approx(error, rel=1e-6)
    ours, theirs = codes_at(series.open(3)), codes_at(series.open(2))
    assert result["agreement"] == pytest.approx(np.mean(ours == theirs), abs=1e-12)
    assert result["shared_rows"] == N
    used = sum(len(np.unique(column)) for column in ours.T)
    assert result["unused_entries"] == pytest.approx(1 - used / (256 * 4))
    np.testing.assert_array_equal(code_of(series.codes(3)).encode(x)[0], ours)
    np.testing.assert_array_equal(code_of(series.codes(3)).encode(y)[0], theirs)


def test_a_refit_is_told_beside_the_frozen_code(folder: Path) -> None:
    result = recorded(es.Series(folder / "pq"), 3)["tables"]["items"]
    assert 0 <= result["refit_agreement"] < result["agreement"]
    assert result["refit_error"] > 0 < result["frozen_error"]
    assert "refit_error" not in recorded(es.Series(folder / "int8"), 2)["tables"]["items"]


def test_a_refit_is_a_version_of_its_own_and_old_codes_stay(
    copied: Callable[[str], es.Series], folder: Path
) -> None:
    series = copied("pq")
    before = [read(series.codes(number)) for number in (1, 2, 3)]
    series.add(folder / "day-2.zarr", name="again", refit_code=True, accept="the same rows")
    known = recorded(series, 4)
    assert known["made"] == 4
    assert known["stamp"] != recorded(series, 3)["stamp"]
    # Entries have the numbers of the old entries that are near to them.
    assert known["tables"]["items"]["agreement_with_replaced"] > 0.3
    assert "agreement" not in known["tables"]["items"]
    for number, rows in zip((1, 2, 3), before, strict=True):
        np.testing.assert_array_equal(read(series.codes(number)), rows)
    with pytest.raises(es.InputError, match="of two codes"):
        series.codes(4, like=3)
    series.add(folder / "day-1.zarr", name="later", accept="the same rows")
    assert recorded(series, 5)["made"] == 4
    series.gc(grace=0)
    assert not series.verify().damage
    np.testing.assert_array_equal(read(series.codes(1)), before[0])


def test_another_setting_makes_another_code(
    copied: Callable[[str], es.Series], folder: Path
) -> None:
    series = copied("int8")
    series.change(code="int4", code_rotate=True)
    series.add(folder / "day-1.zarr", name="again", accept="the same rows")
    assert (recorded(series, 4)["made"], code_of(series.codes()).name) == (4, "int4")
    series.change(code=None, code_rotate=False)
    series.add(folder / "day-1.zarr", name="last", accept="the same rows")
    assert "codes" not in series.show().figures
    with pytest.raises(es.InputError, match="has no codes"):
        series.codes()


def test_codes_of_two_versions_are_never_read_as_one(
    copied: Callable[[str], es.Series], folder: Path
) -> None:
    """A codebook, or a chunk of codes, of another version in a run is damage."""
    series = copied("pq")
    series.add(folder / "day-2.zarr", name="again", refit_code=True, accept="the same rows")
    paths = [Path(series.open(number).path) for number in (3, 4)]
    for part in ("codebook/c/0/0/0", "codes/c/0/0"):
        old, new = (path / "items" / part for path in paths)
        kept = new.read_bytes()
        shutil.copyfile(old, new)
        with pytest.raises(es.DamageError):
            read(es.Series(series.store.place("")).codes(4))
        assert series.verify().damage
        new.write_bytes(kept)
    assert not series.verify().damage


# --- everything that a series does


def test_shadows_rollbacks_and_promotions_have_their_codes(
    copied: Callable[[str], es.Series], folder: Path
) -> None:
    series = copied("int8")
    series.add(folder / "day-1.zarr", name="shadow", shadow=True, accept="the same rows")
    assert recorded(series, 3)["made"] == 1
    np.testing.assert_array_equal(read(series.codes(3)), read(series.open(3).codes))
    assert series.promote(3).version.figures["codes"] == recorded(series, 3)
    series.add(folder / "day-1.zarr", name="tried", shadow=True, refit_code=True, accept="as above")
    series.add(folder / "day-1.zarr", name="live", accept="the same rows")
    known = [recorded(series, number)["made"] for number in (5, 6)]
    assert known == [5, 1]  # a shadow's code is not the series' until it is promoted
    assert series.rollback(2).version.figures["codes"] == recorded(series, 2)
    np.testing.assert_array_equal(read(series.codes()), read(series.codes(2)))


def test_forgotten_rows_leave_the_codes(copied: Callable[[str], es.Series]) -> None:
    series = copied("pq")
    before, kept = codes_at(series.open(2)), np.ones(N, bool)
    kept[5] = False
    series.forget([15], table="items", rewrite=True)
    series.gc(grace=0)
    np.testing.assert_array_equal(codes_at(series.open(2)), before[kept])
    assert 15 not in np.asarray(series.codes(2).items.ids)
    assert not series.verify().damage
    series.codes(3, like=1)


LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("name", "rewrite"),
    [
        ("int8", False),
        pytest.param("pq", True, marks=LONG),
        pytest.param("int8", True, marks=LONG),
        pytest.param("pq", False, marks=LONG),
    ],
)
def test_a_rebase_moves_what_codes_give_back(
    copied: Callable[[str], es.Series], folder: Path, name: str, rewrite: bool
) -> None:
    series = copied(name)
    numbers = range(1, len(series.log().versions) + 1)
    before = [(read(series.open(n)), read(series.codes(n))) for n in numbers]
    series.rebase(es.open_run(folder / "day-2.zarr"), rewrite=rewrite)
    for number, (rows, decoded) in zip(numbers, before, strict=True):
        Q = rotation(rows, read(series.open(number)))
        moved = read(series.codes(number))
        off = np.linalg.norm(moved - decoded @ Q) / np.linalg.norm(rows)
        assert off < (0.02 if rewrite else 1e-5)  # rewritten ones are coded anew
    if rewrite:
        series.codes(2, like=1)
    else:
        with pytest.raises(es.InputError, match="another space"):
            _ = series.open(1).codes
    made = len(series.log().versions) + 1
    series.add(folder / "day-1.zarr", name="again", accept="the same rows")
    assert recorded(series, made)["made"] == (made if name == "int8" and not rewrite else 1)
    error = recorded(series, made)["tables"]["items"]
    assert error["error"] < 1.5 * error["error_when_made"]
    assert not series.verify().damage


@pytest.mark.parametrize("part", ["codes/c/1/0", "scale/c/1"])
def test_verify_names_a_damaged_chunk_of_codes(
    copied: Callable[[str], es.Series], part: str
) -> None:
    series = copied("int8")
    path = Path(series.open(2).path) / "items" / part
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    (line,) = series.verify().damage
    assert part in line
    with pytest.raises(es.DamageError):
        es.evaluate(series.codes(2), series.open(1))
    es.evaluate(series.open(2), series.open(1))  # the vectors are whole


@pytest.mark.usefixtures("small_tasks")
def test_an_interrupted_add_goes_on_with_the_same_codes(
    folder: Path, tmp_path: Path, writing: Any
) -> None:
    begun: list[int] = []

    def interrupt(n: int) -> None:
        if n == 4:
            raise KeyboardInterrupt

    for name in ("whole", "struck"):
        series = es.Series.init(tmp_path / name, **PQ)
        if name == "struck":
            with writing(interrupt), pytest.raises(KeyboardInterrupt):
                series.add(folder / "day-0.zarr")
            assert not series.log().versions
        with writing(begun.append):
            series.add(folder / "day-0.zarr")
    assert 0 < len(begun) < 2 * 7  # of 7 tasks, three were kept
    whole, struck = (es.Series(tmp_path / name) for name in ("whole", "struck"))
    for key in ("items", "users"):
        np.testing.assert_array_equal(codes_at(struck.open(), key), codes_at(whole.open(), key))
    assert struck.show().digests["chunks"] == whole.show().digests["chunks"]


def test_a_run_left_with_another_code_is_written_anew(folder: Path, tmp_path: Path) -> None:
    series = es.Series.init(tmp_path / "series", code="int8", gates={"matched": 2.0})
    series.add(folder / "day-0.zarr")
    with pytest.raises(es.HoldError):
        series.add(folder / "day-1.zarr")
    series.change(code="int4")
    series.add(folder / "day-1.zarr", accept="known")
    assert code_of(series.codes()).name == "int4"


@pytest.mark.parametrize("code", ["rq2", pytest.param("int8-component", marks=LONG)])
def test_a_rewriting_rebase_onto_a_version_keeps_the_code_of_that_version(
    folder: Path, tmp_path: Path, code: str
) -> None:
    off = {"gates": dict.fromkeys(THRESHOLDS)}
    series = es.Series.init(tmp_path / "series", code=code, code_force=True, **off)
    for number in range(2):
        series.add(folder / f"day-{number}.zarr")
    before = recorded(series, 1)["stamp"]
    series.rebase(es.open_run(folder / "day-1.zarr"))
    series.add(folder / "day-1.zarr", name="again")
    assert recorded(series, 4)["made"] == 1
    series.rebase(1, rewrite=True)
    series.codes(4, like=1)
    series.codes(2, like=1)
    assert stamps(codes_in(series.store, series.log().located(series.show(2)))) == before
    assert not series.verify().damage


# --- gates


def test_figures_of_codes_are_gates(folder: Path) -> None:
    version = es.Series(folder / "pq").show(3)
    verdicts = {verdict["gate"]: verdict for verdict in version.verdicts}
    for key, known in version.figures["codes"]["tables"].items():
        wanted = {
            "code_saturation": known["saturation"],
            "code_error": known["error"] / known["error_when_made"],
            "dead_codes": known["unused_entries"] - known["unused_entries_when_made"],
            "code_agreement": known["agreement"] - known["agreement_by_chance"],
        }
        for gate, figure in wanted.items():
            assert verdicts[gate]["figures"][key] == pytest.approx(figure)
            limits = {gate: 2.0 if gate == "code_agreement" else -1.0}
            (held_by,) = held(judge({gate: {key: figure}}, limits))
            assert held_by["gate"] == gate


@pytest.mark.filterwarnings("ignore:the rows agree with their reference rows no better")
def test_rows_that_the_frozen_codebook_was_not_made_for_are_held(
    folder: Path, tmp_path: Path
) -> None:
    off = {**dict.fromkeys(THRESHOLDS), "code_error": 1.5}
    series = es.Series.init(tmp_path / "series", **{**PQ, "gates": off})
    series.add(folder / "day-0.zarr")
    others = np.random.default_rng(5).normal(size=(2, N, D)) * 8
    strange = es.create_run(
        tmp_path / "strange.zarr",
        *others.astype(np.float32),
        item_ids=np.arange(N) * 3,
        user_ids=np.arange(N),
    )
    with pytest.raises(es.HoldError, match="code_error"):
        series.add(strange, name="strange")


# --- laws of turning and renumbering


@given(st.integers(0, 2**31), st.booleans())
def test_a_turned_code_gives_back_turned_rows(seed: int, has_matrix: bool) -> None:
    rng = np.random.default_rng(seed)
    matrix = np.linalg.qr(rng.normal(size=(6, 6)))[0] if has_matrix else None
    code = ProductCode(6, rng.normal(size=(3, 256, 2)).astype(np.float32), matrix)
    M, rows = np.linalg.qr(rng.normal(size=(6, 6)))[0], rng.normal(size=(20, 6))
    moved = turned(code, M)
    numbers, _ = moved.encode(rows @ M)
    np.testing.assert_array_equal(numbers, code.encode(rows)[0])
    np.testing.assert_allclose(moved.decode(numbers), code.decode(numbers) @ M, atol=1e-4)


@given(st.integers(0, 2**31))
def test_renumbering_finds_shuffled_entries(seed: int) -> None:
    rng = np.random.default_rng(seed)
    old = ProductCode(6, rng.normal(size=(3, 256, 2)).astype(np.float32))
    shuffled = np.stack([rng.permutation(entries) for entries in old.codebooks])
    np.testing.assert_array_equal(
        renumbered(ProductCode(6, shuffled), old).codebooks, old.codebooks
    )


# --- what is refused


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"code": "int7"}, "code must be one of"),
        ({"code_rotate": True}, "is not set"),
        ({"code": "pq3", "code_force": True}, "cannot be cut so"),
        ({"code": "pq4"}, "need about 10000 rows"),
        ({"code": "int8", "code_rank": 99}, "must lie between 1 and 8"),
    ],
)
def test_codes_that_cannot_be_are_one_error(
    folder: Path, tmp_path: Path, given_: dict[str, Any], message: str
) -> None:
    with pytest.raises(es.InputError, match=message):
        es.Series.init(tmp_path / "series", **given_).add(folder / "day-0.zarr")


def test_a_rotated_code_is_unset_with_its_rotation(copied: Callable[[str], es.Series]) -> None:
    series = copied("int5")
    with pytest.raises(es.InputError, match=r"unset them with it \(code_rotate=False\)"):
        series.change(code=None)
    series.change(code=None, code_rotate=False)
    assert series.settings.code is None


def test_a_refit_needs_a_code(copied: Callable[[str], es.Series], folder: Path) -> None:
    with pytest.raises(es.InputError, match="stores vectors alone"):
        copied("plain").add(folder / "day-1.zarr", name="again", refit_code=True)


def test_the_command_line(folder: Path, tmp_path: Path, capsys: Any) -> None:
    place = str(tmp_path / "series")
    for words in (
        ["init", place, "--code", "int6", "--code-rotate"],
        ["add", place, str(folder / "day-0.zarr")],
        ["add", place, str(folder / "day-1.zarr"), "--refit-code"],
    ):
        assert main(["series", *words], standalone_mode=False) in (None, 0)
    assert es.Series(place).settings.code_rotate
    assert recorded(es.Series(place), 2)["made"] == 2
    capsys.readouterr()
    main(["series", "codes", place, "1", "--json"], standalone_mode=False)
    assert '"code": "int6"' in capsys.readouterr().out
    assert main_exit(["series", "codes", place, "2", "--like", "1"]) == 0  # made of its name alone


# --- what is told


def test_a_replay_with_another_code_tells_recall_and_agreement(
    folder: Path, tmp_path: Path
) -> None:
    series = es.Series(folder / "int8")
    replayed = series.replay(tmp_path / "scratch", code="int4")
    last = replayed["runs"][-1]["figures"]
    assert 1 >= last["code_recall"]["series"] > last["code_recall"]["scratch"] > 0.5
    assert last["items_code_error"]["difference"] > 0
    assert 0 < last["items_code_agreement"]["series"] < 1
    assert replayed["means"]["code_recall"]["difference"] < 0
    T, W, decoded = read(series.open(2)), read(series.open(2), "users"), read(series.codes(2))
    asked = W[np.sort(np.random.default_rng(0).choice(len(W), len(W), replace=False))]
    best, result = (np.argsort(-asked @ rows.T, axis=1)[:, :10] for rows in (T, decoded))
    shared = np.mean([len({*a} & {*b}) / 10 for a, b in zip(best, result, strict=True)])
    assert last["code_recall"]["series"] == pytest.approx(shared, abs=1e-9)


def test_status_metrics_and_report_tell_of_codes(folder: Path) -> None:
    series = es.Series(folder / "pq")
    known = recorded(series, 3)["tables"]["items"]
    codes = series.status()["codes"]
    assert (codes["code"], codes["made"], codes["row_bytes"]["items"]) == ("pq4", 1, 4)
    text = series.metrics()
    (line,) = (
        line
        for line in text.splitlines()
        if line.startswith("embstab_series_code{")
        and 'table="items"' in line
        and 'figure="agreement"' in line
    )
    assert float(line.split()[-1]) == known["agreement"]
    assert 'gate="code_error"' in text
    report = series.report()
    assert report.to_dict()["codes"]["items"]["agreement"] == [
        recorded(series, n)["tables"]["items"].get("agreement") for n in (1, 2, 3)
    ]
    assert "Agreement of the codes of items" in report.html
    assert "codes of items" not in es.Series(folder / "plain").report().html
