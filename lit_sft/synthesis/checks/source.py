"""What an article contains, by which answers are judged: its words, numbers and pairs of characters."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from itertools import pairwise

from data_modules.cleaning.units import is_cjk, units_of
from lit_sft.synthesis.checks.numbers import normal, values_in
from lit_sft.synthesis.checks.units import units_by_value
from lit_sft.synthesis.checks.words import content_of, stem_of

_LAST = threading.local()


@dataclass(frozen=True, slots=True)
class Source:
    """What a text contains. The parts of a text are added with `+`.

    Attributes:
        text: The text.
        squeezed: In lower case, without white space.
        units: Its words, and characters of Chinese, in lower case.
        stems: Their stems.
        pairs: Pairs of neighbouring Chinese characters, with and without the function words between them.
        values: Every value that it may stand for; see `values_in`.
        measured: The units that each of its numbers has.
    """

    text: str
    squeezed: str
    units: frozenset[str]
    stems: frozenset[str]
    pairs: frozenset[str]
    values: frozenset[str]
    measured: dict[str, frozenset[str]]

    @classmethod
    def of(cls, text: str) -> Source:
        """What a text contains."""
        units = units_of(text)
        different = frozenset(units)
        return cls(
            text,
            "".join(text.lower().split()),
            different,
            frozenset(map(stem_of, different)),
            frozenset(pairs_of(text)),
            frozenset(values_in(text)),
            units_by_value(normal(text)),
        )

    def __add__(self, other: Source) -> Source:
        return Source(
            f"{self.text}\n{other.text}",
            f"{self.squeezed}\n{other.squeezed}",
            self.units | other.units,
            self.stems | other.stems,
            self.pairs | other.pairs,
            self.values | other.values,
            {
                value: self.measured.get(value, frozenset()) | other.measured.get(value, frozenset())
                for value in self.measured.keys() | other.measured.keys()
            },
        )


def source_of(article: str) -> Source:
    """What an article contains; those of the last two texts in each thread are kept, since its pairs follow each other.

    Args:
        article: The article's text, as it is or in simplified Chinese.
    """
    kept: list[Source] = getattr(_LAST, "sources", [])
    source = next((each for each in kept if each.text == article), None) or Source.of(article)
    _LAST.sources = [source, *(each for each in kept if each is not source)][:2]
    return source


def pairs_of(text: str) -> set[str]:
    """Pairs of neighbouring Chinese characters, with and without the function words between them.

    Args:
        text: Any text.
    """
    every = units_of(text)
    if not any(map(is_cjk, every)):  # most texts; their content is not needed
        return set()
    both = (every, content_of(text))
    return {one + other for units in both for one, other in pairwise(units) if is_cjk(one) and is_cjk(other)}
