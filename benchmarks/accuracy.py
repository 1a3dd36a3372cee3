"""How many digits does every route keep? Largest error of a transformed column against 80-digit
arithmetic, by condition number.

    python benchmarks/accuracy.py --seeds 20 --markdown docs/accuracy.md

Two tables of 40 and 47 rows of 6 components and a separated spectrum, of every kind in
`exact.KINDS`; kappa is the larger condition number of the two column-equilibrated tables. All
figures are the worst over kinds and seeds.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from common import command_line, parser, publish, table
from exact import (
    KINDS,
    UNIT,
    Array,
    Case,
    condition,
    opposed,
    score_error,
    separated,
    separated_biased,
)

import dask_embstab as es
from dask_embstab.errors import ConditionError

KAPPAS = (1e2, 1e4, 1e6, 1e8, 1e10)
ROUTES = ("gram", "qr", "auto")
TABLES = ("items", "users")
MEANS = (0, 1, 3, 100)
REFUSED = float("inf")
_CERTIFICATE_TEXT = (
    "The last two columns are the largest figures of any fit: a certificate holds where error /"
    " certificate is at most 1, and says something where it is not far above the error, or above"
    " the unit where the error is less: 2.2e-16 kappa, for a plain Gramian 2.2e-16 kappa^2."
    " `tests/test_accuracy.py` holds 1 and 150."
)
CERTIFICATE = ("error / certificate", "certificate / max(error, unit)")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark, print the tables, return every figure."""
    options = _parser().parse_args(argv)
    results = {
        "command": command_line("accuracy", argv),
        "columns": [
            by_kind(kinds, kappa, options.seeds)
            for kinds in options.kinds
            for kappa in options.kappa
        ],
        "means": [by_mean(mean, options.seeds) for mean in MEANS],
        "scores": [opposed_scores(kappa, options.seeds) for kappa in options.kappa],
    }
    return publish(results, markdown(results), options)


def by_kind(kinds: str, kappa: float, n_seeds: int) -> dict[str, Any]:
    """Worst errors of all ways to transform the pairs of one kind, and how far the certificates lie
    above them.
    """
    errors: dict[str, float] = defaultdict(float)
    shares: list[float] = []
    above: list[float] = []

    def noted(name: str, case: Case, route: str) -> None:
        error, certificate, unit = transformed(case, route)
        _note(errors, name, error)
        if np.isfinite(error):
            shares.append(error / certificate)
            above.append(certificate / max(error, unit))

    for case in separated(kinds, kappa, n_seeds):
        _note(errors, "exact M rounded", worst(case, _rounded(case)))
        _note(errors, "QR, paper's formula", worst(case, paper_formula(case.items, case.users)))
        for route in ROUTES:
            noted(route, case, route)
    if kappa <= 1e6:
        for case in separated(kinds, kappa, n_seeds, dtype="float32", d=5, n=30):
            noted("auto, float32 tables", case, "auto")
    return {
        "kinds": kinds,
        "kappa": kappa,
        "errors": dict(errors),
        "share": max(shares),
        "above": max(above),
    }


def by_mean(mean: float, n_seeds: int) -> dict[str, Any]:
    """Worst errors of the routes on tables whose components have a mean, and how far certificates
    lie above them.
    """
    errors: dict[str, float] = defaultdict(float)
    above: list[float] = []
    shares: list[float] = []
    cases = [
        case
        for dtype in ("float32", "float64")
        for n in (40, 384)
        for case in separated_biased(mean, n_seeds, dtype=dtype, n=n)
    ]
    for case in cases:
        for route in ROUTES:
            error, certificate, unit = transformed(case, route)
            _note(errors, route, error)
            if np.isfinite(error):
                shares.append(error / certificate)
                above.append(certificate / max(error, unit))
    kappa = max(case.kappa for case in cases)
    return {
        "mean": mean,
        "kappa": kappa,
        "errors": dict(errors),
        "share": max(shares),
        "above": max(above),
    }


def transformed(case: Case, route: str) -> tuple[float, float, float]:
    """Largest error of a column of both tables, the larger certificate (both infinite where the
    route refuses), its unit.

    The unit is that of the route that was taken: the condition number, squared for a plain Gramian.
    """
    try:
        transform = es.fit(case.items, case.users, method=route, balance="gramians")  # type: ignore[arg-type]
    except ConditionError:
        return REFUSED, REFUSED, 0.0
    tables = [transform.diagnostics[key] for key in TABLES]
    unit = UNIT * case.kappa ** (2 if any(table["route"] == "gram" for table in tables) else 1)
    errors = worst(case, {key: getattr(transform, key) for key in TABLES})
    return errors, max(table["certificate"] for table in tables), unit


def worst(case: Case, matrices: dict[str, Array]) -> float:
    """Largest error of a column of either table."""
    return float(max(case.exact.column_errors(key, matrices[key]).max() for key in TABLES))


def paper_formula(T: Array, W: Array) -> dict[str, Array]:
    """M_T = R_W' V s^-1/2 and M_W = R_T' U s^-1/2 from plain LAPACK factors: what the recipe of
    this library replaces.
    """
    R_T, R_W = (np.asarray(np.linalg.qr(rows, mode="r")) for rows in (T, W))
    U, s, Vh = np.linalg.svd(R_T @ R_W.T)
    return {"items": R_W.T @ Vh.T / np.sqrt(s), "users": R_T.T @ U / np.sqrt(s)}


def opposed_scores(kappa: float, n_seeds: int) -> dict[str, Any]:
    """Largest change of a score of T = X A, W = Z A^-T in float64, over the largest score, beside
    chi.
    """
    errors, chis = [], []
    for seed in range(n_seeds):
        T, W = opposed(30, 5, kappa, np.random.default_rng(seed))
        transform = es.fit(T, W, method="qr")
        errors.append(score_error(T, W, transform.transform_items(T), transform.transform_users(W)))
        lengths = [np.linalg.norm(rows, axis=1).max() for rows in (T, W)]
        chis.append(float(np.prod(lengths) / np.abs(T @ W.T).max()))
    return {
        "kappa": kappa,
        "condition": max(condition(T), condition(W)),
        "error": max(errors),
        "chi": max(chis),
    }


def markdown(results: dict[str, Any]) -> str:
    """The tables for the documents."""
    lines = [
        (
            f"Made by `{results['command']}`; 2.2e-16 kappa is the unit that the errors are"
            " measured in."
        ),
        "",
    ]
    rows = results["columns"]
    names = list(dict.fromkeys(name for row in rows for name in row["errors"]))
    kappas = list(dict.fromkeys(row["kappa"] for row in rows))
    lines += ["Largest error of a column of T M_T or W M_W, over all kinds of tables:", ""]
    figures = []
    for kappa in kappas:
        here = [row for row in rows if row["kappa"] == kappa]
        cells = [_worst_cell([row["errors"].get(name) for row in here]) for name in names]
        share, above = (max(row[name] for row in here) for name in ("share", "above"))
        figures.append(
            [f"{kappa:.0e}", f"{UNIT * kappa:.0e}", *cells, f"{share:.2f}", f"{above:.0f}"]
        )
    lines += table(("kappa", "2.2e-16 kappa", *names, *CERTIFICATE), figures)
    lines += [
        "",
        _CERTIFICATE_TEXT,
        "",
    ]
    lines += [
        (
            "Tables of 40 and 384 rows whose components have a mean (in standard deviations),"
            " float32 and float64:"
        ),
        "",
    ]
    means = [
        [
            f"{row['mean']}",
            f"{row['kappa']:.0e}",
            *(f"{row['errors'][route]:.0e}" for route in ROUTES),
            f"{row['share']:.2f}",
            f"{row['above']:.0f}",
        ]
        for row in results["means"]
    ]
    lines += table(("mean", "largest kappa", *ROUTES, *CERTIFICATE), means)
    lines += ["", "The same by kind (items/users), for `qr`:", ""]
    by_kinds = [
        [kinds, *(f"{row['errors']['qr']:.0e}" for row in rows if row["kinds"] == kinds)]
        for kinds in dict.fromkeys(row["kinds"] for row in rows)
    ]
    lines += table(("kind", *(f"{kappa:.0e}" for kappa in kappas)), by_kinds)
    lines += [
        "",
        "Scores of opposed tables (T = X A, W = Z A^-T), float64, relative to the largest score:",
        "",
    ]
    scores = [
        [
            *(f"{row[key]:.0e}" for key in ("kappa", "chi", "error")),
            f"{row['error'] / row['chi']:.0e}",
        ]
        for row in results["scores"]
    ]
    lines += table(("kappa(A)", "chi", "error", "error / chi"), scores)
    lines += ["", _elsewhere()]
    return "\n".join([*lines, ""])


def _elsewhere() -> str:
    """The score of the last mutation campaign, and the other pages."""
    campaign = (Path(__file__).parent.parent / "docs" / "mutation.md").read_text().splitlines()[0]
    score = campaign.rpartition(": ")[2].rstrip(".")
    return (
        f"Changes to this code that the tests notice: {score}, in a campaign of"
        " `benchmarks/mutation.py` with two seconds of tests per mutant"
        " ([mutation.md](mutation.md) has the command and what was left alive). How often the"
        " estimate of anchors is exceeded: [anchors.md](anchors.md), by `benchmarks/anchors.py`."
    )


def _rounded(case: Case) -> dict[str, Array]:
    return {key: case.exact.matrices[key].astype(np.float64) for key in TABLES}


def _note(errors: dict[str, float], name: str, error: float) -> None:
    errors[name] = max(errors[name], error)


def _worst_cell(errors: list[float | None]) -> str:
    known = [error for error in errors if error is not None]
    answered = [error for error in known if np.isfinite(error)]
    if not known:
        return ""
    if not answered:
        return "refused"
    return f"{max(answered):.0e}" + (" or refused" if len(answered) < len(known) else "")


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__, folder=False)
    options.add_argument("--seeds", type=int, default=20)
    options.add_argument("--kappa", type=float, nargs="+", default=list(KAPPAS))
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    return options


if __name__ == "__main__":
    main()
