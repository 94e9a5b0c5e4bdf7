"""How tokenizers encode the same text: tokens by script, how often each id occurs, round trips, time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from data_modules.progress import Progress
from lit_sft.scripts import ScriptTable, bytes_of_characters
from lit_sft.tokenization.compared import Compared, first_difference
from lit_sft.tokenization.texts import Text, pieces

Counts = npt.NDArray[np.int64]

_MOST_SCRIPTS = 256
_BATCH = 1 << 18
"""Characters encoded at once."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A text that does not come back.

    Attributes:
        origin: Where it is.
        text: The text from where the two differ.
        returned: What came back, from there.
    """

    origin: str
    text: str
    returned: str


@dataclass
class Usage:
    """How one tokenizer encodes the text.

    Attributes:
        counts: How often each id occurs, (ids,).
        tokens: Tokens by script, (scripts,).
        seconds: CPU time of encoding, of all threads.
        changed_texts: Texts that do not come back exactly.
        first_change: The first of them.
    """

    counts: Counts
    tokens: Counts = field(default_factory=lambda: np.zeros(_MOST_SCRIPTS, dtype=np.int64))
    seconds: float = 0.0
    changed_texts: int = 0
    first_change: Difference | None = None


@dataclass
class Measures:
    """The text, and how each tokenizer encodes it.

    Attributes:
        scripts: Names of scripts, by code.
        texts: Number of texts.
        bytes: UTF-8 bytes by script, (scripts,).
        characters: Characters by script, (scripts,).
        usages: One for each tokenizer.
    """

    scripts: list[str]
    usages: list[Usage]
    texts: int = 0
    bytes: Counts = field(default_factory=lambda: np.zeros(_MOST_SCRIPTS, dtype=np.int64))
    characters: Counts = field(default_factory=lambda: np.zeros(_MOST_SCRIPTS, dtype=np.int64))


def measure(texts: Iterable[Text], tokenizers: Sequence[Compared], num_bytes: int | None = None) -> Measures:
    """Encode and decode every text with every tokenizer.

    Args:
        texts: The texts. Very long ones are cut between words.
        tokenizers: The tokenizers. They take turns at going first, because caches favour the later ones.
        num_bytes: Size of the text, if known.
    """
    table = ScriptTable()
    measures = Measures(table.names, [Usage(np.zeros(len(each.entries), dtype=np.int64)) for each in tokenizers])
    with Progress("comparing tokenizers", "bytes", num_bytes) as progress:
        for turn, batch in enumerate(_batches(texts)):
            scripts = [table.codes(text) for _, text in batch]
            for (_, text), codes in zip(batch, scripts, strict=True):
                measures.bytes += _sums(codes, bytes_of_characters(text))
                measures.characters += np.bincount(codes, minlength=_MOST_SCRIPTS)
            for step in range(len(tokenizers)):
                number = (turn + step) % len(tokenizers)
                _use(tokenizers[number], measures.usages[number], batch, scripts)
            measures.texts += len(batch)
            progress.update(sum(len(text.encode()) for _, text in batch))
    return measures


def _use(tokenizer: Compared, usage: Usage, batch: list[tuple[str, str]], scripts: list[npt.NDArray[np.int16]]) -> None:
    texts = [text for _, text in batch]
    started = time.process_time()
    encodings = tokenizer.encode(texts)
    usage.seconds += time.process_time() - started
    for encoding, codes in zip(encodings, scripts, strict=True):
        usage.counts += np.bincount(np.array(encoding.ids, dtype=np.int64), minlength=len(usage.counts))
        starts = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)[:, 0]
        usage.tokens += np.bincount(codes[starts.clip(max=len(codes) - 1)], minlength=_MOST_SCRIPTS)
    for (origin, text), returned in zip(batch, tokenizer.decode(encodings), strict=True):
        if returned != text:
            usage.changed_texts += 1
            usage.first_change = usage.first_change or _difference(origin, text, returned)


def _sums(codes: npt.NDArray[np.int16], values: Counts) -> Counts:
    return np.bincount(codes, weights=values, minlength=_MOST_SCRIPTS).astype(np.int64)


def _difference(origin: str, text: str, returned: str) -> Difference:
    at = first_difference(text, returned)
    return Difference(origin, text[at : at + 20], returned[at : at + 20])


def _batches(texts: Iterable[Text]) -> Iterator[list[tuple[str, str]]]:
    """Texts with their places, some at a time."""
    batch: list[tuple[str, str]] = []
    size = 0
    for text in texts:
        for piece in pieces(text.text):
            batch.append((text.origin, piece))
            size += len(piece)
            if size >= _BATCH:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch
