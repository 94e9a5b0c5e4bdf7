"""What a rule quotes from a text: what its pattern found, in whole words."""

from __future__ import annotations

import re

from data_modules.cleaning.units import is_cjk
from data_modules.wording import shortened

_LONGEST = 60


def quoted(found: re.Match[str]) -> str:
    """What a pattern found, shortened, with the rest of the words that it begins and ends in.

    Args:
        found: Not empty. If it ends in Chinese, where words have no ends, the rest of the clause is quoted.
    """
    text = found.string
    start, stop = found.start(), found.start() + len(found[0].rstrip())
    while 0 < start < len(text) and _is_letter(text[start - 1]) and _is_letter(text[start]):
        start -= 1
    follows = str.isalnum if stop and is_cjk(text[stop - 1]) else _is_letter
    while 0 < stop < len(text) and text[stop - 1].isalnum() and follows(text[stop]):
        stop += 1
    return shortened(" ".join(text[start:stop].split()), _LONGEST)


def _is_letter(character: str) -> bool:
    return character.isalpha() and not is_cjk(character)
