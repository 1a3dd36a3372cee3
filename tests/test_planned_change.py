"""A model that changes its width, or is another one: one call, no gate in the way, and the series
goes on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_consensus
from oracle import assert_close, vectors_of
from test_consensus import Array, unit

import dask_embstab as es
from dask_embstab.cli.main import main
from dask_embstab.series.publish import publish as publishing
from dask_embstab.series.publish.planned import MODEL_GATES, nearest_axes

quick = test_consensus.quick
N_ITEMS, N_USERS, TRUE = 500, 600, 96
SPREAD = 1.04 ** -np.arange(TRUE)


def trained(day: int, d: int, *, world: int = 5, keep: str = "scores") -> tuple[Array, Array]:
    """The best d components of a world that drifts a little, in axes of the day's own."""
    fixed, rng = np.random.default_rng(world), np.random.default_rng((world, day))
    T, W = (fixed.normal(size=(n, TRUE)) * SPREAD for n in (N_ITEMS, N_USERS))
    T, W = (rows + 0.05 * rng.normal(size=rows.shape) * SPREAD for rows in (T, W))
    (Q_T, R_T), (Q_W, R_W) = np.linalg.qr(T), np.linalg.qr(W)
    U, s, Vh = np.linalg.svd(R_T @ R_W.T)
    A = np.linalg.qr(rng.normal(size=(d, d)))[0] * (
        np.linspace(0.5, 2, d) if keep == "scores" else 1.0
    )
    return Q_T @ U[:, :d] * np.sqrt(s[:d]) @ A, Q_W @ Vh[:d].T * np.sqrt(s[:d]) @ np.linalg.inv(A).T


def run(folder: Path, day: int, d: int, **options: Any) -> es.Run:
    return es.create_run(
        folder / f"day-{day}.zarr", *trained(day, d, **options), item_ids=np.arange(N_ITEMS) * 3
    )


def series_of(folder: Path, d: int, *, keep: str = "scores", **settings: Any) -> es.Series:
    """Two runs of this width."""
    series = es.Series.init(folder / "series", keep=keep, **settings)
    for day in (0, 1):
        series.add(run(folder, day, d, keep=keep))
    return series


def cosine(series: es.Series, a: int, b: int) -> float:
    x, y = (np.asarray(series.open(n).items.vectors) for n in (a, b))  # type: ignore[union-attr]
    k = min(x.shape[1], y.shape[1])
    return float(np.sum(unit(x)[:, :k] * unit(y)[:, :k], axis=1).mean())


@pytest.mark.parametrize("keep", ["scores", "geometry"])
def test_a_wider_model_widens_the_space(tmp_path: Path, keep: str) -> None:
    series = series_of(tmp_path, 64, keep=keep)
    wider = run(tmp_path, 2, 96, keep=keep)
    with pytest.raises(es.InputError, match="96 and the reference has 64 components"):
        series.add(wider)
    made = series.add(wider, new_model="ninety-six")
    assert (made.version.version, made.version.model) == (3, "ninety-six")
    assert series.add(run(tmp_path, 3, 96, keep=keep)).published, "the next one needs no option"
    assert [series.open(n).items.d for n in (1, 2, 3, 4)] == [64, 64, 96, 96]  # type: ignore[union-attr]
    assert min(cosine(series, 2, 3), cosine(series, 3, 4)) > 0.9
    assert series.diff(2, 4).items.mean_cosine > 0.9  # type: ignore[union-attr]
    assert series.status()["well"]
    T, W = trained(2, 96, keep=keep)
    transformed = series.open(3)
    assert_close(vectors_of(transformed) @ np.asarray(transformed.users.vectors).T, T @ W.T, 1e-9)  # type: ignore[union-attr]
    assert not series.verify().damage


@pytest.mark.parametrize("keep", ["scores", "geometry"])
def test_a_narrower_model_may_narrow_the_space(tmp_path: Path, keep: str) -> None:
    """Every version is then read in it, as the nearest rows that it can hold; and one can
    go back.
    """
    series = series_of(tmp_path, 96, keep=keep)
    before = [np.asarray(series.open(n).items.vectors) for n in (1, 2)]  # type: ignore[union-attr]
    made = series.add(run(tmp_path, 2, 64, keep=keep), new_model="sixty-four", width=64)
    assert [v.kind for v in series.log().versions] == ["publish", "publish", "rebase", "publish"]
    assert made.version.version == 4
    lost = series.show(3).basis["onto"]["lost_energy"]["items"]
    assert 0 < lost < 0.2
    assert series.add(run(tmp_path, 3, 64, keep=keep)).published
    assert [series.open(n).items.d for n in range(1, 6)] == [64] * 5  # type: ignore[union-attr]
    assert min(cosine(series, 2, 4), cosine(series, 4, 5)) > 0.9
    for n, old in zip((1, 2), before, strict=True):
        rows = np.asarray(series.open(n).items.vectors)  # type: ignore[union-attr]
        best = np.sort(np.linalg.eigvalsh(old.T @ old))[:32].sum() / np.square(old).sum()
        assert 1 - np.square(rows).sum() / np.square(old).sum() == pytest.approx(best, rel=0.1)
        transformed = series.transform_for(version=n).transform_items(
            trained(n - 1, 96, keep=keep)[0]
        )
        assert_close(transformed, rows, 1e-6)
    assert series.status()["well"]
    assert not series.verify().damage
    series.rebase(None)
    for n, old in zip((1, 2), before, strict=True):
        np.testing.assert_array_equal(np.asarray(series.open(n).items.vectors), old)  # type: ignore[union-attr]


def test_without_a_width_a_narrower_model_leaves_all_shapes_as_they_are(tmp_path: Path) -> None:
    series = series_of(tmp_path, 96)
    series.add(run(tmp_path, 2, 64), new_model="sixty-four")
    assert series.open().items.d == 96  # type: ignore[union-attr]
    assert series.head().figures["rank"] == 64  # type: ignore[union-attr]


def test_a_setting_follows(tmp_path: Path) -> None:
    """It was what refused the runs that follow."""
    series = series_of(tmp_path, 64, width=64)
    series.add(run(tmp_path, 2, 96), new_model="ninety-six")
    assert series.settings.width == 96
    assert series.add(run(tmp_path, 3, 96)).published


def test_another_model_is_held_unless_it_is_planned(tmp_path: Path) -> None:
    """An unrelated world: every gate on the model's likeness would hold it; those on the delivery
    still do.
    """
    series = series_of(tmp_path, 32)
    other = run(tmp_path, 2, 32, world=99)
    with pytest.raises(es.HoldError) as error:
        series.add(other)
    holding = {v["gate"] for v in error.value.verdicts if v["verdict"] == "hold"}
    assert holding
    assert holding <= set(MODEL_GATES)
    made = series.add(other, new_model="other")
    verdicts = {v["gate"]: v["verdict"] for v in made.version.verdicts}
    assert {verdicts[name] for name in MODEL_GATES} <= {"off", "not applicable"}
    assert verdicts["scores"] == verdicts["matched"] == "pass"
    assert made.version.accepted is None
    assert series.settings.gates["agreement"] == 0.15, "for this run alone"
    short = es.create_run(
        tmp_path / "short.zarr",
        *(rows[:200] for rows in trained(3, 32)),
        item_ids=np.arange(200) * 3,
    )
    with pytest.raises(es.HoldError, match="rows"):
        series.add(short, new_model="yet another")
    with pytest.raises(es.InputError, match="leads to another model; 'other' is the head's"):
        series.add(run(tmp_path, 4, 32), new_model="other")


def test_a_held_change_changes_nothing(tmp_path: Path) -> None:
    series = series_of(tmp_path, 96)
    T, W = trained(2, 64)
    short = es.create_run(tmp_path / "short.zarr", T[:290], W, item_ids=np.arange(290) * 3)
    with pytest.raises(es.HoldError, match="rows"):
        series.add(short, new_model="sixty-four", width=64)
    assert len(series.log().versions) == 2
    assert series.open().items.d == 96  # type: ignore[union-attr]
    assert series.add(short, new_model="sixty-four", width=64, accept="a smaller shop").published
    assert series.open(1).items.d == 64  # type: ignore[union-attr]


def test_what_is_no_change_of_all_is_refused(tmp_path: Path) -> None:
    series = series_of(tmp_path, 24)
    other = run(tmp_path, 2, 16)
    with pytest.raises(es.InputError, match="one model"):
        series.add(other, model="a", new_model="b")
    with pytest.raises(es.InputError, match="a model's name is a text"):
        series.add(other, new_model="")
    with pytest.raises(es.InputError, match="readers do not see a shadow"):
        series.add(other, new_model="b", width=16, shadow=True)
    assert len(series.log().versions) == 2
    assert series.add(other, new_model="b", shadow=True).version.state == "shadow"


def test_a_space_that_would_lose_too_much_is_refused(tmp_path: Path) -> None:
    series = series_of(tmp_path, 96)
    with pytest.raises(
        es.InputError, match=r"may lose 0\.1 of the energy .* 16 components lose 0\."
    ):
        series.add(run(tmp_path, 2, 16), new_model="sixteen", width=16, max_lost_energy=0.1)
    assert len(series.log().versions) == 2


def test_an_interruption_between_the_two_versions_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series, narrower = series_of(tmp_path, 96), run(tmp_path, 2, 64)
    original, n = publishing.create_version, 0

    def killed(*arguments: Any) -> None:
        nonlocal n
        n += 1
        if n == 2:
            raise KeyboardInterrupt
        original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(publishing, "create_version", killed)
        with pytest.raises(KeyboardInterrupt):
            series.add(narrower, new_model="sixty-four", width=64)
    assert [v.kind for v in series.log().versions][2:] == ["rebase"]
    assert not series.verify().damage
    assert series.add(narrower, new_model="sixty-four", width=64).version.version == 4


def test_it_is_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series_of(tmp_path, 24)
    run(tmp_path, 2, 16)
    arguments = [
        str(tmp_path / "series"),
        str(tmp_path / "day-2.zarr"),
        "--new-model",
        "m",
        "--width",
        "16",
        "--json",
    ]
    with pytest.raises(SystemExit) as ended:
        main(["series", "add", *arguments], prog_name="embstab")
    output = json.loads(capsys.readouterr().out)
    assert (ended.value.code, output["model"], output["version"]) == (0, "m", 4)


def test_the_axes_that_stay_are_the_nearest() -> None:
    """The leading subspace, turned so that nothing turns where its axes were the first ones."""
    rng = np.random.default_rng(0)
    G = np.diag([9.0, 8.0, 7.0, 0.1, 0.01])
    np.testing.assert_allclose(nearest_axes(G, 3), np.eye(5, 3), atol=1e-12)
    A = rng.normal(size=(30, 5)) * [4, 3, 2, 1, 0.5] @ np.linalg.qr(rng.normal(size=(5, 5)))[0]
    P = nearest_axes(A.T @ A, 2)
    np.testing.assert_allclose(P.T @ P, np.eye(2), atol=1e-12)
    assert np.square(A @ P).sum() == pytest.approx(np.square(np.linalg.svd(A)[1][:2]).sum())
    assert np.linalg.det(P[:2]) != 0
    assert (np.linalg.eigvals(P[:2]).real > 0).all()
    assert_close(P[:2], P[:2].T, 1e-9)
