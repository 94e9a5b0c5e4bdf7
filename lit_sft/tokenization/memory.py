"""How much text fits into memory: the library keeps every distinct word, so memory grows with their number.

English text repeats its words, but Chinese has no spaces, so everything between two punctuation marks is a word, and
nearly all of these words are new. The number in a large text is extrapolated from a small sample.
"""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from data_modules.errors import UserError
from data_modules.progress import Progress
from lit_sft.tokenization.sampling import Corpus, place_of
from lit_sft.tokenization.splitting import PRE_TOKENIZERS, PreTokenizerName
from lit_sft.tokenization.texts import pieces

DEFAULT_MEMORY = 4 * 10**9
"""The default limit, in bytes. It does not depend on the machine, so neither does the tokenizer."""

# measured with tokenizers 0.23 on generated English and Chinese text; rounded up
_PROCESS = 500 * 10**6
_PER_BYTE, _PER_WORD = 140, 100

_PILOT = 8 * 10**6
"""Bytes of the small sample, whose distinct words are counted."""


@dataclass(frozen=True)
class Growth:
    """The memory for distinct words in three nested samples: a quarter of the text, half of it, and all of it.

    Words are grouped by length. Within a group, their number grows with a power of the size of the text, and the power
    falls slowly as the words of a language run out. Over all groups this does not hold if the text mixes languages.

    Attributes:
        num_bytes: Bytes of text in each sample.
        sizes: Bytes of memory for the words of each sample, by group.
    """

    num_bytes: tuple[int, int, int]
    sizes: tuple[Mapping[int, int], Mapping[int, int], Mapping[int, int]]

    def memory(self, num_bytes: int) -> float:
        """Bytes of memory needed to train on this many bytes of text."""
        doublings = math.log2(num_bytes / self.num_bytes[2])
        return _PROCESS + sum(size * 2 ** self._growth(group, doublings) for group, size in self.sizes[2].items())

    def _growth(self, group: int, doublings: float) -> float:
        """How often the words of a group double while the text doubles `doublings` times."""
        early, late = self._power(group, 0), self._power(group, 1)
        decline = min(0.0, late - early)
        total, power = 0.0, late
        for step in range(math.ceil(doublings)):
            power = max(0.0, power + decline)
            total += power * min(1.0, doublings - step)
        return total

    def _power(self, group: int, sample: int) -> float:
        """The power with which the words of a group grow from one sample to the next; at most 1."""
        before, after = (each.get(group, 0) for each in self.sizes[sample : sample + 2])
        ratio = self.num_bytes[sample + 1] / self.num_bytes[sample]
        return min(1.0, math.log(after / before) / math.log(ratio)) if before else 1.0


def within_memory(corpus: Corpus, pre_tokenizer: PreTokenizerName, max_memory: int) -> Corpus:
    """The corpus, or a smaller sample of it if training on all of it would take more memory.

    Args:
        corpus: The texts, or a sample of them.
        pre_tokenizer: How they are split into words.
        max_memory: Bytes of memory.

    Raises:
        UserError: If the limit is too low for any training.
    """
    if max_memory <= 2 * _PROCESS:
        raise UserError(f"--max_memory {max_memory:,}: too little to train; expected more than {2 * _PROCESS:,}.")
    safe = (max_memory - _PROCESS) // (_PER_BYTE + _PER_WORD // 2)  # even if every two bytes were a new word
    if corpus.used_bytes <= safe:
        return corpus
    try:
        growth = growth_in(corpus.limited(min(_PILOT, safe)), pre_tokenizer)
    except UserError:  # the texts are too long for samples of this size
        return corpus.limited(safe, "--max_memory")
    low, high = safe, corpus.used_bytes
    if growth.memory(high) <= max_memory:
        return corpus
    while high - low > low // 1000:
        middle = (low + high) // 2
        low, high = (middle, high) if growth.memory(middle) <= max_memory else (low, middle)
    return corpus.limited(low, "--max_memory")


def growth_in(pilot: Corpus, pre_tokenizer: PreTokenizerName) -> Growth:
    """Count the distinct words of a sample, of half of it and of a quarter of it.

    Args:
        pilot: The sample.
        pre_tokenizer: How texts are split into words.
    """
    samples = [pilot.limited(pilot.used_bytes // 4), pilot.limited(pilot.used_bytes // 2), pilot]
    smallest: dict[str, int] = {}
    for sample, word in _words(pilot, [each.border for each in samples], pre_tokenizer):
        if sample < smallest.get(word, len(samples)):
            smallest[word] = sample
    sizes: tuple[dict[int, int], ...] = tuple(defaultdict(int) for _ in samples)
    for word, first in smallest.items():
        for size in sizes[first:]:
            size[len(word).bit_length()] += len(word) * _PER_BYTE + _PER_WORD
    quarter, half, whole = (each.used_bytes for each in samples)
    return Growth((quarter, half, whole), (sizes[0], sizes[1], sizes[2]))


def _words(pilot: Corpus, borders: list[int], pre_tokenizer: PreTokenizerName) -> Iterator[tuple[int, str]]:
    """Every word of a sample, with the smallest of the nested samples that its text belongs to."""
    splitter = PRE_TOKENIZERS[pre_tokenizer]()
    own = replace(
        pilot, counts=[replace(count) for count in pilot.counts]
    )  # a copy, because reading changes the counts
    with Progress("estimating memory", "bytes", pilot.used_bytes) as progress:
        for text in own.texts():
            sample = bisect.bisect_right(borders, place_of(text))
            for piece in pieces(text.text):
                for word, _ in splitter.pre_tokenize_str(piece):
                    yield sample, word
            progress.update(text.num_bytes)
