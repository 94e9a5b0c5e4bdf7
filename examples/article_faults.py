"""Plants faults in articles, as they occur in text from the web, and names them, so that cleaning can be checked."""

import random
import re
import unicodedata
from collections.abc import Callable

Fault = Callable[[str, str, random.Random], str]
"""Makes a faulty text from a clean one, its title and a random generator; the same text if it does not apply."""

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
    """The title before the text, as a separate paragraph."""
    return f"{title}\n\n{text}"


def empty_brackets(text: str, title: str, rng: random.Random) -> str:
    """Empty brackets before full stops."""
    bracket = rng.choice(["（）", "()", "（ ）", "【】"]) if is_chinese(text) else " " + rng.choice(["()", "( )", "[]"])
    places = [match.start() for match in re.finditer("(?<=[\u4e00-\u9fff])。|(?<=[a-z])\\.", text)]
    for place in sorted(rng.sample(places, min(len(places), rng.randint(1, 3))), reverse=True):
        text = text[:place] + bracket + text[place:]
    return text


def conversion_marks(text: str, title: str, rng: random.Random) -> str:
    """Empty markup for converting between simplified and traditional characters; only in Chinese texts."""
    return _insert(text, ["-{}-"] * rng.randint(1, 2), rng) if is_chinese(text) else text


def tags(text: str, title: str, rng: random.Random) -> str:
    """Tags of web pages after sentences."""
    return _insert(text, rng.choices(_TAGS, k=rng.randint(1, 3)), rng)


def control_characters(text: str, title: str, rng: random.Random) -> str:
    """Invisible characters after sentences."""
    return _insert(text, rng.choices(_CONTROL, k=rng.randint(1, 3)), rng)


def decomposed_letters(text: str, title: str, rng: random.Random) -> str:
    """Accented letters as two code points each."""
    return unicodedata.normalize("NFD", text)


def wide_digits(text: str, title: str, rng: random.Random) -> str:
    """Digits as wide as Chinese characters."""
    return re.sub("[0-9]", lambda found: chr(ord(found[0]) + 0xFEE0), text)


def narrow_punctuation(text: str, title: str, rng: random.Random) -> str:
    """Half-width commas; only in Chinese texts."""
    return re.sub("(?<=[\u4e00-\u9fff])，(?=[\u4e00-\u9fff])", ",", text) if is_chinese(text) else text


def boilerplate(text: str, title: str, rng: random.Random) -> str:
    """A last line that occurs on many pages."""
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
"""Each fault, and the probability that an article to which it applies has it."""


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
    """The same article with a word changed, like a second page about the same thing."""
    swaps = {"Monday": "Tuesday", "Friday": "Saturday", "Sunday": "Monday", "six": "seven", "three": "four"}
    swaps |= {"星期一": "星期二", "星期五": "星期六", "六": "七", "三": "四", "高兴": "开心"}
    changed, left = text, 1
    for old in rng.sample(list(swaps), len(swaps)):
        if left and old in changed:
            changed, left = changed.replace(old, swaps[old], 1), left - 1
    if changed == text:
        changed = text + ("（完）" if is_chinese(text) else " So it was told.")
    return changed
