"""Experiment 5: how far is the error of an alignment from its bounds?

Maystre et al. (arXiv 2510.13406): of X and Y (n, d), with eps = |XX' - YY'| (Frobenius), there is
an orthogonal Q with |XQ - Y| <= (2d)^1/4 sqrt(eps), whatever n is. `es.fit` gives the exact error
of its rotation and this bound, a sharper one, sqrt of the nuclear norm of XX' - YY', and what no
rotation can go below, eps / (s1(X) + s1(Y)). All are shown over |Y|: an error of 1.41 is that of
unrelated rows of equal length.

Synthetic rows are Y = Z D with standard normal Z and the k-th of D's scales k^-decay, and X = (Y +
noise E) Q with E as large as Y and a random Q. The real ones are those of experiments 1, 3 and 4:
three recommenders, weeks of a web shop, text models, images and captions.

    python examples/bounds.py [--data FOLDER] [--seeds 0 1 2] [--rows 2000] [--weeks 14]
    [--markdown docs/experiments.md] [--small]
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ortho_group
from threadpoolctl import threadpool_limits

import dask_embstab as es

sys.path.insert(
    0, str(Path(__file__).resolve().parent)
)  # also where the example is run by another program

import gmf
import webshop
from papers import Rows, Titled, columns_of, command_line, parser_of, report, require_data
from text_vectors import models, read_collection
from webshop_figures import Items, shared

FIGURES = ("lower bound", "error", "nuclear bound", "paper's bound", "paper's bound / error")
NOISE, DIMENSIONS, DECAYS = (0.001, 0.01, 0.1, 0.3, 1.0), (8, 32, 128), (0.0, 1.0)

Measured = dict[str, float]


def sandwich(x: Any, y: Any) -> Measured:
    """Error and bounds of the best rotation of one table onto another, over |Y|."""
    width = max(x.shape[1], y.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", es.EmbstabWarning)  # of noise as large as the rows
        alignment = es.fit(x, reference=y, keep="geometry", width=width).diagnostics["alignment"]
    size = alignment["error"] / alignment["relative_error"]
    names = ("lower_bound", "error", "nuclear_bound", "bound")
    lower, error, nuclear, bound = (alignment[name] / size for name in names)
    return dict(zip(FIGURES, (lower, error, nuclear, bound, bound / error), strict=True))


def synthetic(n: int, d: int, noise: float, decay: float, *, seed: int) -> tuple[Rows, Rows]:
    """A table and its noisy, rotated copy."""
    rng = np.random.default_rng((seed, d))
    y = rng.standard_normal((n, d)) * np.arange(1, d + 1) ** -decay
    e = rng.standard_normal((n, d))
    e *= noise * np.linalg.norm(y) / np.linalg.norm(e)
    return (y + e) @ ortho_group.rvs(d, random_state=seed), y


def recommenders(folder: Path) -> Iterator[tuple[str, Rows, Rows]]:
    """The GMF runs b and c against a: as trained, and with both in the standardized form that
    stabilizing gives them.
    """
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        raw = {name: gmf.create(folder / f"gmf_{name}.npz", place / name) for name in gmf.NAMES}
        standard = {
            name: es.stabilize(run, place / f"{name}-standard") for name, run in raw.items()
        }
        for title, runs in (("as trained", raw), ("standardized", standard)):
            rows = {name: np.asarray(run.table("items").vectors) for name, run in runs.items()}
            for name in gmf.NAMES[1:]:
                yield f"GMF items, {name} on a, {title}", rows[name], rows["a"]


def shop(
    path: Path, *, n_weeks: int, seed: int, gaps: Sequence[int]
) -> Iterator[tuple[str, Rows, Rows]]:
    """Weeks of the web shop against the first one."""
    first, *later = [
        week
        for k, week in enumerate(webshop.weeks(webshop.read_events(path), n_weeks=n_weeks))
        if k in (0, *gaps)
    ]
    trained = [webshop.train(week, seed=seed) for week in (first, *later)]
    a = Items(first.item_ids, trained[0].items.astype(np.float64))
    for gap, week, factors in zip(gaps, later, trained[1:], strict=True):
        _, y, x = shared(a, Items(week.item_ids, factors.items.astype(np.float64)))
        yield f"web shop items, {gap} weeks later", x, y


def texts(path: Path, *, seed: int, cache: Path | None) -> Iterator[tuple[str, Rows, Rows]]:
    """Documents of every other model against those of the widest one; centred ones too."""
    collection = read_collection(path)
    *others, (widest, theirs) = models(collection, seed=seed, cache=cache).items()
    for name, ours in others:
        x, y = ours.documents, theirs.documents
        yield f"{collection.name}, {name} on {widest}", x, y
        yield f"{collection.name}, {name} on {widest}, centred", x - x.mean(0), y - y.mean(0)


def pictures(path: Path) -> Iterator[tuple[str, Rows, Rows]]:
    """Images against captions."""
    images, captions = np.load(path).astype(np.float64)
    yield "CLIP, images on captions", images, captions
    yield "CLIP, images on captions, centred", images - images.mean(0), captions - captions.mean(0)


def real(options: Any, seed: int) -> Iterator[tuple[str, Rows, Rows]]:
    """All the real pairs of tables: name, X and Y."""
    data = options.data
    yield from recommenders(require_data(data, "gmf/gmf_a.npz").parent)
    gaps = [gap for gap in (1, 4, 13) if gap < options.weeks]
    online = require_data(data, "online_retail/online_retail.csv.gz")
    yield from shop(online, n_weeks=options.weeks, seed=seed, gaps=gaps)
    for file in () if options.small else ("cran", "cisi"):
        path = require_data(data, f"text/{file}.tar.gz")
        yield from texts(path, seed=seed, cache=options.cache)
    yield from pictures(require_data(data, "clip_gap/features_clip.npy"))


def main(argv: Sequence[str] | None = None) -> dict[str, list[dict[Any, Measured]]]:
    """Run the experiment; figures by world of every seed, synthetic and real ones."""
    parser = parser_of("The error of an alignment between its bounds.")
    parser.add_argument("--rows", type=int, default=2000, help="of the synthetic tables")
    parser.add_argument("--weeks", type=int, default=14, help="of the web shop")
    parser.add_argument("--cache", type=Path, help="a folder to keep MiniLM's vectors in")
    parser.add_argument(
        "--small", action="store_true", help="one seed, 500 rows, 2 weeks, no texts"
    )
    options = parser.parse_args(argv)
    if options.small:
        options.seeds, options.rows, options.weeks = options.seeds[:1], 500, 2
    dimensions = DIMENSIONS[:1] if options.small else DIMENSIONS
    results: dict[str, list[dict[Any, Measured]]] = {"synthetic": [], "real": []}
    sizes: dict[str, tuple[int, int]] = {}
    with threadpool_limits(1, "blas"):
        for seed in options.seeds:
            one = {}
            for name, x, y in real(options, seed):
                one[name], sizes[name] = sandwich(x, y), (len(x), max(x.shape[1], y.shape[1]))
            results["real"].append(one)
            worlds = [(d, k, e) for d in dimensions for k in DECAYS for e in NOISE]
            results["synthetic"].append(
                {
                    (d, k, e): sandwich(*synthetic(options.rows, d, e, k, seed=seed))
                    for d, k, e in worlds
                }
            )
    made, measured = results["synthetic"], results["real"]
    tables: list[Titled] = [
        (f"Synthetic, {options.rows} rows", ("d", "decay", "noise", *FIGURES), [
            [*map(str, key), *columns_of([one[key] for one in made], FIGURES)] for key in made[0]
        ]),
        ("Real", ("tables", "rows", "d", *FIGURES), [
            [name, *map(str, sizes[name]), *columns_of([one[name] for one in measured], FIGURES)]
            for name in measured[0]
        ]),
    ]  # fmt: skip
    about = (
        f"{len(options.seeds)} seeds (of the noise, the web shop's starts, the halves that LSA is"
        " trained on); mean ± standard deviation over them, 0 where nothing is random."
    )
    report(5, command_line("bounds.py", argv), about, tables, options.markdown)
    return results


if __name__ == "__main__":
    main()
