"""Faults that are planted in articles, as text from the web has them, and counted, so that cleaning can be checked."""

import random
import re
import unicodedata
from collections.abc import Callable

Fault = Callable[[str, str, random.Random], str]
"""Makes a faulty text of a clean one, its title and random choices; the same text if the fault does not fit."""

_SENTENCE_END = re.compile(r"(?<=[。！？])(?=\S)|(?<=[.!?])(?= )")
_CHINESE = re.compile("[\u4e00-\u9fff]")
_CONTROL = ["\u200b", "\x07", "\u00ad", "\x1b"]
_TAGS = ['<ref name="a"/>', "<sup></sup>", "<!-- note -->", "<b></b>"]
_BOILERPLATE = {
    True: ["本页最后更新于秋天。转载请注明出处。", "分享到：书签 | 打印 | 收藏"],
    False: ["This page was last edited in autumn. All rights reserved.", "Share this page | Print | Bookmark"],
}


def is_chinese(text: str) -> bool:
    """Whether a text has Chinese characters before anything else."""
    return bool(_CHINESE.search(text[:8]))


def _insert(text: str, pieces: list[str], rng: random.Random) -> str:
    """Put pieces at the ends of sentences inside a paragraph."""
    places = [match.start() for match in _SENTENCE_END.finditer(text)]
    for place, piece in zip(
        sorted(rng.sample(places, min(len(places), len(pieces))), reverse=True), pieces, strict=False
    ):
        text = text[:place] + piece + text[place:]
    return text


def heading(text: str, title: str, rng: random.Random) -> str:
    """The title stands before the text, as a paragraph of its own."""
    return f"{title}\n\n{text}"


def empty_brackets(text: str, title: str, rng: random.Random) -> str:
    """Brackets whose content was lost, before full stops."""
    bracket = rng.choice(["（）", "()", "（ ）", "【】"]) if is_chinese(text) else " " + rng.choice(["()", "( )", "[]"])
    places = [match.start() for match in re.finditer("(?<=[\u4e00-\u9fff])。|(?<=[a-z])\\.", text)]
    for place in sorted(rng.sample(places, min(len(places), rng.randint(1, 3))), reverse=True):
        text = text[:place] + bracket + text[place:]
    return text


def conversion_marks(text: str, title: str, rng: random.Random) -> str:
    """Empty marks for converting simplified to traditional characters; in Chinese texts only."""
    return _insert(text, ["-{}-"] * rng.randint(1, 2), rng) if is_chinese(text) else text


def tags(text: str, title: str, rng: random.Random) -> str:
    """Tags of web pages after sentences."""
    return _insert(text, rng.choices(_TAGS, k=rng.randint(1, 3)), rng)


def control_characters(text: str, title: str, rng: random.Random) -> str:
    """Characters that nobody sees, after sentences."""
    return _insert(text, rng.choices(_CONTROL, k=rng.randint(1, 3)), rng)


def decomposed_letters(text: str, title: str, rng: random.Random) -> str:
    """Letters with accents as two code points each."""
    return unicodedata.normalize("NFD", text)


def wide_digits(text: str, title: str, rng: random.Random) -> str:
    """Digits as wide as Chinese characters."""
    return re.sub("[0-9]", lambda found: chr(ord(found[0]) + 0xFEE0), text)


def narrow_punctuation(text: str, title: str, rng: random.Random) -> str:
    """Commas of half the width; in Chinese texts only."""
    return re.sub("(?<=[\u4e00-\u9fff])，(?=[\u4e00-\u9fff])", ",", text) if is_chinese(text) else text


def boilerplate(text: str, title: str, rng: random.Random) -> str:
    """A last line that many pages share."""
    return f"{text}\n\n{rng.choice(_BOILERPLATE[is_chinese(text)])}"


FAULTS: dict[str, tuple[float, Fault]] = {
    "decomposed_letters": (0.5, decomposed_letters),
    "control_characters": (0.06, control_characters),
    "tags": (0.08, tags),
    "conversion_marks": (0.08, conversion_marks),
    "empty_brackets": (0.12, empty_brackets),
    "wide_digits": (0.5, wide_digits),
    "narrow_punctuation": (0.08, narrow_punctuation),
    "boilerplate": (0.1, boilerplate),
    "heading": (0.4, heading),
}
"""Each fault, and the share of the articles that have it, of those that it fits."""


def with_faults(text: str, title: str, rng: random.Random) -> tuple[str, list[str]]:
    """Plant faults in a clean article.

    Returns:
        The faulty text, and the names of its faults.
    """
    found = []
    for name, (share, fault) in FAULTS.items():
        if rng.random() < share and (changed := fault(text, title, rng)) != text:
            text = changed
            found.append(name)
    return text, found


def near_copy(text: str, rng: random.Random) -> str:
    """The same article with a word or two changed, as a second page about the same thing has it."""
    swaps = {"Monday": "Tuesday", "Friday": "Saturday", "Sunday": "Monday", "six": "seven", "three": "four"}
    swaps |= {"星期一": "星期二", "星期五": "星期六", "六": "七", "三": "四", "高兴": "开心"}
    changed, left = text, 1
    for old in rng.sample(list(swaps), len(swaps)):
        if left and old in changed:
            changed, left = changed.replace(old, swaps[old], 1), left - 1
    if changed == text:
        changed = text + ("（完）" if is_chinese(text) else " So it was told.")
    return changed
