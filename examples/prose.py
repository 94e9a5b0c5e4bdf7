"""Fills sentence templates with random words; the same seed gives the same sentences."""

import random
import re
from collections.abc import Mapping, Sequence

_SLOT = re.compile(r"\{(\w+)\}")


class Prose:
    """Writes sentences from templates such as "{a} met {b} at {place}.".

    Args:
        rng: Makes every choice.
        words: The words for each slot, which may contain slots themselves.
    """

    def __init__(self, rng: random.Random, words: Mapping[str, Sequence[str]]) -> None:
        self.rng, self.words = rng, words

    def fill(self, template: str, **slots: str) -> str:
        """Fill in a template. Slots that are not given get random words, all different."""
        found = dict(slots)

        def replace(match: re.Match[str]) -> str:
            name = match[1]
            while name not in found:
                word = self.fill(self.rng.choice(self.words[name.rstrip("0123456789")]), **slots)
                if word not in found.values():
                    found[name] = word
            return found[name]

        return _SLOT.sub(replace, template)

    def sentence(self, template: str, **slots: str) -> str:
        """Fill in a template and begin it with a capital letter."""
        text = self.fill(template, **slots)
        return text[0].upper() + text[1:]

    def some(self, templates: Sequence[str], count: int, **slots: str) -> list[str]:
        """Fill in some of the templates, in random order, none twice."""
        chosen = self.rng.sample(list(templates), min(count, len(templates)))
        return [self.sentence(template, **slots) for template in chosen]

    def one(self, templates: Sequence[str], **slots: str) -> str:
        """Fill in one of the templates."""
        return self.sentence(self.rng.choice(templates), **slots)
