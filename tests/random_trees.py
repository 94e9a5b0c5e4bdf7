"""Random documents that share their beginnings, for tests."""

from __future__ import annotations

import numpy as np

from data_modules.encoding.example import Example
from data_modules.rendering.segments import SegmentKind

_KINDS = (SegmentKind.USER, SegmentKind.ANSWER, SegmentKind.TEMPLATE, SegmentKind.SYSTEM)


def random_documents(seed: int, most: int = 12, vocabulary: int = 3) -> list[np.ndarray]:
    """Up to `most` documents, (T,) int32 each: branches of earlier ones, equal ones, beginnings of others, and new."""
    generator = np.random.default_rng(seed)
    documents: list[np.ndarray] = []
    for _ in range(generator.integers(1, most + 1)):
        kind = generator.choice(["new", "branch", "branch", "branch", "beginning", "equal"])
        # of two, the longer one, and most of it: trees become deep
        olds = [documents[generator.integers(len(documents))] for _ in range(2 if documents else 0)]
        old = max(olds, key=len, default=np.zeros(0, dtype=np.int32))
        new = generator.integers(0, vocabulary, generator.integers(1, 30))
        kept = old[: generator.integers(len(old) // 2, len(old) + 1)]
        parts = {"new": [new], "branch": [kept, new], "beginning": [kept], "equal": [old]}[str(kind)]
        document = np.concatenate(parts).astype(np.int32)
        documents.append(document if len(document) else new.astype(np.int32))
    return documents


def random_examples(seed: int, vocabulary: int = 3) -> list[Example]:
    """Examples with these ids, each with borders of turns and kinds of its own."""
    generator = np.random.default_rng(seed)
    return [
        _example(number, ids, generator) for number, ids in enumerate(random_documents(seed, vocabulary=vocabulary))
    ]


def _example(number: int, ids: np.ndarray, generator: np.random.Generator) -> Example:
    cuts = np.sort(generator.integers(0, len(ids) + 1, 5))
    turns = np.searchsorted(cuts, np.arange(len(ids)), side="right")
    kinds = generator.choice(_KINDS, 6)[turns]
    return Example(ids, kinds.astype(np.uint8), turns.astype(np.int16), origin=f"file:{number}")
