"""Numbers in English and Chinese text, by value: 1,200, 1200, twelve hundred and 一千二百 are the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache, reduce

from lit_sft.synthesis.checks.words import words_in


def _any_of(words: Iterable[str]) -> str:
    """A pattern for any of some words, the longest first. It looks at the first letter before it tries the words."""
    longest_first = sorted(words, key=len, reverse=True)
    return f"(?=[{''.join(sorted({word[0] for word in longest_first}))}])(?:{'|'.join(longest_first)})"


_DIGITS = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_SCALES = {
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "百": 100,
    "千": 1000,
    "万": 10**4,
    "萬": 10**4,
    "亿": 10**8,
    "億": 10**8,
}
_WRITTEN = re.compile(
    rf"({_DIGITS})\s*((?:hundred|thousand|million|billion|trillion)\b|(?:[百万萬亿億]|千(?![克米瓦]))+)?", re.IGNORECASE
)
_METRIC = re.compile("千(?=[克米瓦])")
"""千克 is a kilogram, but 5千克 may also be read as 5,000 grams."""

_MONEY = re.compile(r"(?<=[$€£])$")
_SHORT_SCALES = {"k": 1000, "m": 10**6, "mn": 10**6, "b": 10**9, "bn": 10**9, "tn": 10**12}
_SHORT_SCALE = re.compile(r"\s?(k|mn?|bn?|tn)\b", re.IGNORECASE)
"""After a sum of money, as in $5m and £3bn."""

_POWER = re.compile(r"(?<![A-Za-z])(?:[kcm]?m|ft|mi)$", re.IGNORECASE)
"""What the 2 of km2 follows."""

_SMALL = words_in(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = words_in("twenty thirty forty fifty sixty seventy eighty ninety")
_ORDINALS = words_in(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth"
)
_WORDS = {
    **{word: value for value, word in enumerate(_SMALL)},
    **{word: 10 * value for value, word in enumerate(_TENS, start=2)},
    **{word: value for value, word in enumerate(_ORDINALS, start=1)},
    **{f"{word[:-1]}ieth": 10 * value for value, word in enumerate(_TENS, start=2)},
    **{f"{word[:-1]}ies": 10 * value for value, word in enumerate(_TENS, start=2)},
    "twice": 2,
    "dozen": 12,
}
_MULTIPLIERS = {word: scale for word, scale in _SCALES.items() if word.isascii()}
_MULTIPLIERS |= {f"{word}th": scale for word, scale in _MULTIPLIERS.items()}
_ANY_WORD = _any_of({*_WORDS, *_MULTIPLIERS})
_SPELLED = re.compile(rf"\b{_ANY_WORD}(?:(?:[\s-]|\sand\s)+{_ANY_WORD})*\b", re.IGNORECASE)

_CHINESE_DIGITS = {digit: value for value, digit in enumerate("〇一二三四五六七八九")} | {"零": 0, "两": 2, "兩": 2}
_CHINESE_UNITS = {"十": 10, "百": 100, "千": 1000}
_LARGE = {unit: _SCALES[unit] for unit in "万萬亿億"}
_NUMERAL = re.compile("[〇零一二两兩三四五六七八九十百千万萬亿億]+")
_SHORT_NUMERAL = "[〇零一二两兩三四五六七八九十百千万萬亿億]{1,30}"
_COUNTED = re.compile(
    "[年月日号岁個个位名人次种種条條章层層座本部篇首米尺里公千克斤吨度倍届屆级級代世页頁句张張颗顆只隻件类類"
    "小分天周週点點元美万亿所家国國省市县縣支艘架辆輛处處项項段步卷集期道种余餘多几孔尺寸斤两間间只棵株场場代排列]"
)
"""What a Chinese numeral counts. Others are parts of words, as in 三角 and 一般."""

_MONTHS = words_in(
    "january february march april may june july august september october november december jan feb mar apr jun jul aug "
    "sep sept oct nov dec"
)
_MONTH = re.compile(rf"\b({_any_of(_MONTHS)})\b", re.IGNORECASE)

_PERIODS = {"decade": "10", "century": "100", "centurie": "100", "fortnight": "14", "couple": "2", "pair": "2"}
_PERIOD = re.compile(rf"\b({'|'.join(_PERIODS)})s?\b", re.IGNORECASE)

_LONGEST = 30
"""Words of a number, or characters of a Chinese one; longer runs are no numbers."""

_NOT_CHECKED = {"0", "1"}
"""`one` and 一 are words as often as numbers."""


@dataclass(frozen=True, slots=True)
class Written:
    """A number as it is written in a text.

    Attributes:
        value: In a canonical spelling, with the scale after it: 3.5 million is 3500000.
        plain: Without the scale.
        start: Where it starts in the text, which is normalised (NFKC).
        stop: Where it ends.
    """

    value: str
    plain: str
    start: int
    stop: int


@lru_cache(maxsize=64)  # several rules look at the same texts
def written_in(text: str, *, is_strict: bool = True) -> tuple[Written, ...]:
    """The numbers of a text, where they stand.

    Args:
        text: Any text, normalised (NFKC).
        is_strict: Leave out `one`, 一, Chinese numerals inside words, and second readings of a number.
    """
    words = [*_in_words(text), *_in_chinese(text, is_strict=is_strict)]
    digits = _in_digits(text, is_strict=is_strict)
    return (*digits, *(each for each in words if not is_strict or each.value not in _NOT_CHECKED))


def normal(text: str) -> str:
    """A text in which full-width digits and letters are ordinary ones."""
    return unicodedata.normalize("NFKC", text)


def numbers_in(text: str) -> dict[str, str]:
    """The numbers of a text: values in a canonical spelling, and as they are written.

    Spelled out, `one` and 一 do not count, nor do Chinese numerals inside words.

    Args:
        text: Any text.
    """
    text = normal(text)
    return {each.value: text[each.start : each.stop].strip() for each in reversed(written_in(text))}


def values_in(text: str) -> set[str]:
    """Every value that a text may stand for: numbers with and without the scale after them, months,
    and words such as decade.

    Args:
        text: Any text.
    """
    text = normal(text)
    found = {value for each in written_in(text, is_strict=False) for value in (each.value, each.plain)}
    found |= {str(_month(match[0])) for match in _MONTH.finditer(text)}
    found |= {_PERIODS[match[1].lower()] for match in _PERIOD.finditer(text)}
    return found


def without_numbers(text: str) -> str:
    """A text without its numbers and what Chinese numbers count.

    Args:
        text: Any text.
    """
    text = normal(text)
    for pattern in (_WRITTEN, _SPELLED):
        text = re.sub(rf"(?:{pattern.pattern})(?:余|餘|多|几)?{_COUNTED.pattern}?", " ", text, flags=re.IGNORECASE)
    return re.sub(rf"{_SHORT_NUMERAL}(?:余|餘|多|几)?{_COUNTED.pattern}", " ", text)


def _in_digits(text: str, *, is_strict: bool) -> Iterator[Written]:
    """The numbers in digits."""
    for match in _WRITTEN.finditer(text):
        start, stop = match.span(1)
        if match[1] in ("2", "3") and _POWER.search(text[max(0, start - 3) : start]):
            continue
        plain = Decimal(match[1].replace(",", ""))
        scale, stop = _scale(match[2] or ""), match.end()
        if _MONEY.match(text, start, start) and (short := _SHORT_SCALE.match(text, match.end(1))):
            scale, stop = _SHORT_SCALES[short[1].lower()], short.end()
        yield Written(_canonical(plain * scale), _canonical(plain), start, stop)
        if not is_strict and _METRIC.match(text, match.end()):
            thousands = _canonical(plain * 1000)
            yield Written(thousands, thousands, start, match.end() + 1)


def _scale(unit: str) -> int:
    scales = [_SCALES[unit.lower()]] if unit.isascii() and unit else [_SCALES[each] for each in unit]
    return reduce(lambda product, each: product * each, scales, 1)


def _in_words(text: str) -> Iterator[Written]:
    """The English numbers in words."""
    for match in _SPELLED.finditer(text):
        words = [word for word in re.split(r"[\s-]+", match[0].lower()) if word != "and"]
        if len(words) <= _LONGEST and any(word in _WORDS for word in words):  # hundreds of, a million
            value = str(_english_value(words))
            yield Written(value, value, *match.span())


def _english_value(words: list[str]) -> int:
    total = part = 0
    for word in words:
        if (scale := _MULTIPLIERS.get(word, 0)) == 100:
            part = max(1, part) * 100
        elif word == "dozen":
            part = max(1, part) * 12
        elif scale:
            total, part = total + max(1, part) * scale, 0
        elif 10 <= part <= 99 and _WORDS[word] >= 10:  # nineteen twenty-two, the nineteen twenties
            part = part * 100 + _WORDS[word]
        else:
            part += _WORDS[word]
    return total + part


def _in_chinese(text: str, *, is_strict: bool) -> Iterator[Written]:
    """The Chinese numerals; strictly, only those that count something."""
    for match in _NUMERAL.finditer(text):
        run, before = match[0], text[match.start() - 1 : match.start()]
        if len(run) > _LONGEST or not any(character in _CHINESE_DIGITS or character == "十" for character in run):
            continue
        is_number = (
            before == "第"
            or text.endswith("百分之", 0, match.start())
            or _COUNTED.match(text, match.end())
            or len(set(run)) > 2
        )
        is_number = is_number and text[match.start() : match.end() + 1] != "十分"  # very
        if is_number or not is_strict:
            value = str(_chinese_value(run))
            yield Written(value, value, *match.span())


def _chinese_value(run: str) -> int:
    if all(character in _CHINESE_DIGITS for character in run):  # digit by digit, as years are
        return int("".join(str(_CHINESE_DIGITS[character]) for character in run))
    total = part = digit = 0
    for character in run:
        if character in _CHINESE_DIGITS:
            digit = _CHINESE_DIGITS[character]
        elif character in _CHINESE_UNITS:
            part, digit = part + (digit or 1) * _CHINESE_UNITS[character], 0
        else:
            scale = _LARGE[character]
            # 万 counts what follows the last 亿, 亿 everything before it
            kept = total if scale < 10**8 else 0
            total, part, digit = kept + (total - kept + part + digit or 1) * scale, 0, 0
    return total + part + digit


def _month(name: str) -> int:
    return [name[:3] for name in _MONTHS[:12]].index(name[:3].lower()) + 1


def _canonical(value: Decimal) -> str:
    whole, _, rest = f"{value:f}".partition(".")
    rest = rest.rstrip("0")
    whole = whole.lstrip("0") or "0"
    return f"{whole}.{rest}" if rest else whole
