"""The papers' experiments at reduced size: each command runs, and what the page says holds."""

from __future__ import annotations

import gzip
import re
import tarfile
from itertools import permutations
from pathlib import Path
from typing import Any

import alternatives
import bounds
import mixed_modality
import numpy as np
import papers
import pytest
import recsys_table1
import reranker
import text_models
import webshop
from numpy.testing import assert_allclose

DATA = webshop.default_file().parent.parent
PAGE = Path(__file__).resolve().parent.parent / "docs" / "experiments.md"
PROGRAMS = {
    1: "recsys_table1.py",
    2: "reranker.py",
    3: "text_models.py",
    4: "mixed_modality.py",
    5: "bounds.py",
    6: "alternatives.py",
}
needs_data = pytest.mark.skipif(
    not (DATA / "clip_gap").exists(), reason=f"no clip_gap in {DATA}; set EMBSTAB_DATA"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data with GMF's first users and items, half of Cranfield, and the web shop's first four
    months of a part of its customers.
    """
    folder = tmp_path_factory.mktemp("data")
    (folder / "clip_gap").symlink_to(DATA / "clip_gap")
    cut_cranfield(DATA / "text" / "cran.tar.gz", folder / "text", n_documents=700)
    (folder / "gmf").mkdir()
    for path in (DATA / "gmf").glob("*.npz"):
        with np.load(path) as stored:
            weight, users, items = stored["weight"], stored["users"][:800], stored["items"][:600]
            np.savez(folder / "gmf" / path.name, users=users, items=items, weight=weight)
    (folder / "online_retail").mkdir()
    place = "online_retail/online_retail.csv.gz"
    with (
        gzip.open(DATA / place, "rt", encoding="utf-8", newline="") as lines,
        gzip.open(folder / place, "wt", 1, encoding="utf-8", newline="") as kept,
    ):
        kept.write(next(lines))
        for line in lines:
            if ",2011-04-" in line:
                break
            if re.search(r",1[2-8]\d\d[0369](\.0)?,[^,]*$", line.rstrip()):
                kept.write(line)
    return folder


def cut_cranfield(source: Path, out: Path, *, n_documents: int) -> None:
    """The first documents, and the judgments of them."""
    out.mkdir()
    with tarfile.open(source) as whole, tarfile.open(out / source.name, "w:gz") as part:
        for name in ("cran.all.1400", "cran.qry", "cranqrel"):
            file = whole.extractfile(name)
            assert file is not None
            text = file.read().decode("latin-1")
            if name == "cran.all.1400":
                text = text.partition(f".I {n_documents + 1}\n")[0]
            elif name == "cranqrel":
                lines = text.splitlines()
                text = "\n".join(line for line in lines if int(line.split()[1]) <= n_documents)
            (out / name).write_text(text, encoding="latin-1")
            part.add(out / name, name)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page with the marks of every experiment."""
    path = tmp_path / "page.md"
    marks = "".join(
        f"<!-- experiment {n} -->\nold {n}\n<!-- end of experiment {n} -->\n" for n in range(1, 7)
    )
    path.write_text(marks)
    return path


@pytest.fixture(params=["small", pytest.param("whole", marks=pytest.mark.long)])
def size(request: pytest.FixtureRequest, data: Path) -> tuple[str, ...]:
    """Options of the reduced run on cut data, or of one seed on all of them."""
    if request.param == "small":
        return ("--data", str(data), "--small")
    return ("--data", str(DATA), "--seeds", "0")


def run(program: Any, number: int, size: tuple[str, ...], page: Path) -> Any:
    """Run a command; its section of the page is new, the others are not."""
    results = program.main([*size, "--markdown", str(page)])
    text = page.read_text()
    assert f"python examples/{PROGRAMS[number]} --data" in text
    assert [n for n in range(1, 7) if f"old {n}\n" in text] == [
        n for n in range(1, 7) if n != number
    ]
    return results


@needs_data
def test_stabilizing_makes_trainings_comparable_and_leaves_their_quality(
    size: tuple[str, ...], page: Path
) -> None:
    result = run(recsys_table1, 1, size, page)
    for repetition in (*result["GMF"], *result["Web shop"]):
        raw, rotated, stabilized = (repetition["A-B", form] for form in recsys_table1.FORMS)
        for figures in (rotated, stabilized):
            assert raw["items"] < 0.2 < 0.5 < figures["items"]
            assert raw["users"] < 0.2 < 0.5 < figures["users"]
            assert raw["RBO"] + 0.3 < figures["RBO"]
            assert figures["retrained"] == pytest.approx(raw["retrained"], abs=1e-3)
            assert figures["score change"] < 1e-5
            assert figures.get("hit rate@10") == raw.get("hit rate@10")
    assert result["Web shop"][0]["A-B", "raw"]["hit rate@10"] > 0.05


@needs_data
def test_a_reranker_keeps_more_of_its_quality_on_stabilized_vectors(
    size: tuple[str, ...], page: Path
) -> None:
    (result,) = run(reranker, 2, size, page)
    for label in reranker.LABELS:
        quality = {arm: result[arm, label, "mean"] for arm in reranker.ARMS}
        assert all(0.3 < value < 1 for value in quality.values() if value is not None)
        # A week later, trained anew is trained a week before.
        assert result["stabilized", label, "1"] == result["retrained", label, "1"]
    assert result["raw", "click-like", "mean"] < result["stabilized", "click-like", "mean"]


@needs_data
def test_a_rotation_lets_one_text_model_search_anothers_documents(
    size: tuple[str, ...], page: Path
) -> None:
    (result,) = run(text_models, 3, size, page)["Cranfield"]
    # The other models are where their packages are installed, and reach less.
    for figures in (result[pair] for pair in permutations(("LSA 100", "LSA 200"))):
        assert figures["unaligned"] < 0.05
        assert figures["ceiling"] > 0.25
        for name in ("Procrustes", "both centred"):
            assert figures[name] > 0.85 * figures["ceiling"]


@needs_data
def test_images_and_captions_are_found_in_one_corpus_once_aligned(
    size: tuple[str, ...], page: Path
) -> None:
    for repetition in run(mixed_modality, 4, size, page)[250]:
        for queries in ("captions", "images"):
            gain = {name: repetition[queries, name]["nDCG@10"] for name in mixed_modality.METHODS}
            assert gain["baseline"] < 0.01
            assert gain["align"] > 0.1
            # Half as many pairs as components leave half of the rotation to chance.
            assert gain["centre"] > gain["align"]
            assert gain["pulled + centre"] > max(gain["centre"], gain["align + centre"])


@needs_data
def test_every_alignment_error_lies_between_its_bounds(size: tuple[str, ...], page: Path) -> None:
    result = run(bounds, 5, size, page)
    worlds = [figures for many in result.values() for one in many for figures in one.values()]
    assert len(worlds) > 15
    for figures in worlds:
        lower, error, nuclear, paper, ratio = (figures[name] for name in bounds.FIGURES)
        assert lower <= error <= min(nuclear, paper)
        assert ratio == pytest.approx(paper / error)


def test_the_papers_bound_is_that_of_the_dot_products() -> None:
    x, y = bounds.synthetic(60, 4, 0.3, 0.5, seed=1)
    result = bounds.sandwich(x, y)
    gap = np.linalg.norm(x @ x.T - y @ y.T)
    nuclear = np.linalg.norm(x @ x.T - y @ y.T, "nuc")
    size = np.linalg.norm(y)
    assert_allclose(result["paper's bound"], 8**0.25 * np.sqrt(gap) / size, rtol=1e-6)
    assert_allclose(result["nuclear bound"], np.sqrt(nuclear) / size, rtol=1e-6)


@needs_data
def test_other_maps_fit_rows_more_closely_and_a_rotation_keeps_scores(
    size: tuple[str, ...], page: Path
) -> None:
    result = run(alternatives, 6, size, page)
    for repetitions in result["recommenders"].values():
        (figures,) = repetitions
        assert figures["nothing"]["items"] < 0.2 < 0.5 < figures["rotation"]["items"]
        assert figures["linear map"]["items"] > figures["nothing"]["items"] + 0.3
        own = {name: one.get("nDCG own") for name, one in figures.items()}
        assert own["rotation"] == own["nothing"]
        assert own["stabilized"] == own["nothing"]
        assert figures["CCA"]["RBO"] < figures["rotation"]["RBO"]
        assert figures["MLP"]["numbers kept"] > figures["rotation"]["numbers kept"]
    for (_, n_shared), (one,) in result["texts"].items():
        for figures in (one[pair] for pair in permutations(("LSA 100", "LSA 200"))):
            assert figures["rotation"] > 0.15
            if n_shared != "all":
                continue
            assert figures["nothing"] < 0.05
            assert min(figures[name] for name in ("rotation", "linear map", "CCA")) > 0.25


@pytest.mark.parametrize(
    "program", [recsys_table1, reranker, text_models, mixed_modality, bounds, alternatives]
)
def test_absent_data_are_one_line(program: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: there is no .* in .*; give the folder"):
        program.main(["--data", str(tmp_path), "--small"])


def test_a_page_without_the_marks_is_one_line() -> None:
    with pytest.raises(SystemExit, match=r"^error: the page must have the lines <!-- experiment 4"):
        papers.replace_section("<!-- experiment 3 --><!-- end of experiment 3 -->", 4, "new")


@pytest.mark.parametrize("number", PROGRAMS)
def test_the_page_says_by_which_command_each_table_was_made(number: int) -> None:
    text = PAGE.read_text(encoding="utf-8")
    section = text.split(f"<!-- experiment {number} -->")[1].split("<!-- end of experiment")[0]
    assert section.lstrip().startswith(f"Made by `python examples/{PROGRAMS[number]} ")
    assert "--small" not in section
    assert "| --- |" in section
