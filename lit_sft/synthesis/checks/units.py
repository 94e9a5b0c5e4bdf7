"""Units of numbers: what is written beside a number that was measured, and decades and centuries."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lit_sft.synthesis.checks.numbers import Written, written_in

_UNITS = {
    "square kilometre": r"(?:sq(?:uare|\.)? ?(?:kilomet(?:re|er)s?|km)|km2)\b|平方(?:公里|千米)",
    "square metre": r"(?:sq(?:uare|\.)? ?(?:met(?:re|er)s?|m)|m2)\b|平方(?:米|公尺)|平米",
    "square mile": r"sq(?:uare|\.)? ?mi(?:les?)?\b|平方英里",
    "square foot": r"sq(?:uare|\.)? ?(?:feet|foot|ft)\b|平方英尺",
    "cubic metre": r"(?:cubic met(?:re|er)s?|m3)\b|立方(?:米|公尺)",
    "kilometre": r"(?:kilomet(?:re|er)s?|kms?|kph|kmh)\b|公里|千米",
    "centimetre": r"(?:centimet(?:re|er)s?|cm)\b|厘米|公分",
    "millimetre": r"(?:millimet(?:re|er)s?|mm)\b|毫米|公厘",
    "metre": r"(?:met(?:re|er)s?|m)\b|公尺|米(?!饭|粒|粉|酒)",
    "foot": r"(?:feet|foot|ft)\b|英尺|呎",
    "inch": r"inch(?:es)?\b|英寸|吋",
    "yard": r"(?:yards?|yds?)\b",
    "nautical mile": r"nautical miles?\b|海里|浬",
    "mile": r"(?:miles?|mph)\b|英里|哩",
    "hectare": r"(?:hectares?|ha)\b|公顷",
    "acre": r"acres?\b|英亩",
    "mu": r"mu\b|亩",
    "kilogram": r"(?:kilo(?:gram(?:me)?)?s?|kgs?)\b|公斤|千克",
    "gram": r"(?:gram(?:me)?s?|g)\b|克(?![拉朗])",
    "tonne": r"(?:metric )?ton(?:ne)?s?\b|公?吨",
    "pound": r"(?:pounds?|lbs?|gbp)\b|磅|英镑",
    "ounce": r"(?:ounces?|oz)\b|盎司",
    "jin": r"jin\b|斤",
    "litre": r"(?:lit(?:re|er)s?|l)\b|公升|升(?!级|起|到|至)",
    "gallon": r"gallons?\b|加仑",
    "second": r"sec(?:ond)?s?\b|秒",
    "minute": r"min(?:ute)?s?\b|分钟",
    "hour": r"(?:hours?|hrs?|h)\b|个?(?:小时|钟头)",
    "day": r"days?\b|天|日(?![元圆])",
    "week": r"weeks?\b|个?(?:星期|礼拜)|周(?![年岁])",
    "month": r"months?\b|个月",
    "year": r"years?\b|周?年(?!代|级)",
    "decade": r"decades?\b",
    "percent": r"(?:per ?cent|pct)\b|%",
    "celsius": r"° ?C\b|degrees? (?:celsius|centigrade|c)\b|摄氏度?|℃",
    "fahrenheit": r"° ?F\b|degrees? (?:fahrenheit|f)\b|华氏度?|℉",
    "watt": r"watts?\b|瓦(?!片)",
    "kilowatt": r"(?:kilowatts?|kw)\b|千瓦(?!小?时)",
    "megawatt": r"(?:megawatts?|mw)\b|兆瓦",
    "dollar": r"(?:(?:us|u\.s\.) )?dollars?\b|usd\b|美元|美金",
    "euro": r"(?:euros?|eur)\b|欧元",
    "crown": r"crowns?\b|克朗",
    "franc": r"francs?\b|法郎",
    "yen": r"yen\b|日[元圆]",
    "rouble": r"roubles?\b|rubles?\b|卢布",
    "yuan": r"(?:yuan|rmb|cny)\b|元(?!代|朝|年|旦)(?:人民币)?|人民币|块钱",
}
"""Units, and how they are written after a number. A ton is a tonne, and pounds of money are pounds."""

_PER = r"(?:\s?/\s?(?:h|hr|s|hour|second)\b|\s(?:per|an?)\s(?:hour|minute|second)\b|/?每?(?:小时|秒))?"
_AFTER = re.compile(
    r"(?:\s|-|余|餘|多|几)*(?:"
    + "|".join(f"(?P<u{place}>{pattern})" for place, pattern in enumerate(_UNITS.values()))
    + ")"
    + _PER,
    re.IGNORECASE,
)
_ASKED = re.compile(rf"(?:\bhow many|多少|几)(?:{_AFTER.pattern})", re.IGNORECASE)
_NAMES = {f"u{place}": name for place, name in enumerate(_UNITS)}

_PREFIXES = {
    "dollar": r"(?:\b(?:US|U\.S\.|A|C|HK|NZ) ?)?\$|\bUSD",
    "euro": r"€|\bEUR",
    "pound": r"£|\bGBP",
    "yuan": r"人民币|\bRMB|\bCNY",
    "percent": "百分之",
    "celsius": "摄氏",
    "fahrenheit": "华氏",
}
_BEFORE = re.compile(
    "(?:" + "|".join(f"(?P<b{place}>{pattern})" for place, pattern in enumerate(_PREFIXES.values())) + r")\s*$"
)
_PREFIX_NAMES = {f"b{place}": name for place, name in enumerate(_PREFIXES)}
_LONGEST_PREFIX = 8
_IN_NAME = re.compile("(?<=[A-Za-z])")

_DECADE = re.compile(r"['’]?s\b|\s*年代", re.IGNORECASE)
_CENTURY = re.compile(r"(?:st|nd|rd|th)?[\s-]+centur|\s*世纪|\s*世紀", re.IGNORECASE)


def unit_of(number: Written, text: str) -> str:
    """The unit of a number; empty if it has none that is known.

    Args:
        number: The number.
        text: The text that it stands in.
    """
    return _measure(number, text)[0]


def without_measures(text: str) -> str:
    """A text without the numbers that have a unit, and without these units: they are compared by what they mean.

    Args:
        text: Any text.
    """
    measures = (_measure(number, text) for number in written_in(text))
    parts, place = [], 0
    for start, stop in sorted((start, stop) for unit, start, stop in measures if unit):
        if _IN_NAME.match(text, start):
            continue
        parts.append(text[place:start])
        place = max(place, stop)
    return " ".join([*parts, text[place:]])


def _measure(number: Written, text: str) -> tuple[str, int, int]:
    """The unit of a number, empty if none is known, and where both of them start and stop."""
    stop = number.start + len(text[number.start : number.stop].rstrip())
    first = max(0, number.start - _LONGEST_PREFIX)
    before, after = _BEFORE.search(text[first : number.start]), _AFTER.match(text, stop)
    start, stop = first + before.start() if before else number.start, after.end() if after else stop
    if before and before.lastgroup:
        return _PREFIX_NAMES[before.lastgroup], start, stop
    return _NAMES[after.lastgroup] if after and after.lastgroup else "", start, stop


def asks_in_a_unit(question: str) -> bool:
    """Whether a question asks how many of a unit there are, such as metres and 年."""
    return _ASKED.search(question) is not None


def units_by_value(text: str) -> dict[str, frozenset[str]]:
    """The units that each number of a text has, and "" if it also stands without one.

    Args:
        text: Any text, normalised (NFKC).
    """
    found: dict[str, set[str]] = {}
    for number in written_in(text, is_strict=False):
        unit = unit_of(number, text)
        for value in (number.value, number.plain):
            found.setdefault(value, set()).add(unit)
    return {value: frozenset(units) for value, units in found.items()}


def has_other_unit(number: Written, text: str, given: Mapping[str, frozenset[str]]) -> bool:
    """Whether a number has another unit than wherever it is given.

    Args:
        number: A number of an answer.
        text: The answer, normalised (NFKC).
        given: Units by value.
    """
    unit, units = unit_of(number, text), given.get(number.value, frozenset([""]))
    return bool(unit) and "" not in units and unit not in units


def includes_a_year(number: Written, text: str, years: set[int]) -> bool:
    """Whether a number is a decade or a century, and one of the given years is in it.

    Args:
        number: The number.
        text: The text that it stands in, normalised (NFKC).
        years: Years of four digits.
    """
    if not number.value.isdecimal() or len(number.value) > 4:
        return False
    value, spelling = int(number.value), text[number.start : number.stop].lower()
    if (spelling.endswith("ties") or _DECADE.match(text, number.stop)) and value % 10 == 0:
        return any(value == (year - year % 10) % (10_000 if value > 99 else 100) for year in years)
    return bool(_CENTURY.match(text, number.stop)) and any(value == (year - 1) // 100 + 1 for year in years)
