"""The script that most letters of a text are written in."""

from __future__ import annotations

import re

_LOOKED_AT = 400
"""Characters of a text that are looked at."""

_FEWEST = 8
"""Letters needed to tell the script."""

_SHARE = 0.9

SCRIPTS = {
    "Latin": re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]"),
    "Cyrillic": re.compile("[\u0400-\u052f]"),
    "Greek": re.compile("[\u0370-\u03ff\u1f00-\u1fff]"),
    "Arabic": re.compile("[\u0600-\u06ff\u0750-\u077f]"),
    "Hebrew": re.compile("[\u0590-\u05ff]"),
    "Devanagari": re.compile("[\u0900-\u097f]"),
    "Thai": re.compile("[\u0e00-\u0e7f]"),
    "Hangul": re.compile("[\u1100-\u11ff\uac00-\ud7a3]"),
    "Chinese or Japanese": re.compile("[\u3040-\u30ff\u3400-\u9fff]"),
}


def script_of(text: str) -> str:
    """The script of at least 90% of the letters at the beginning of a text; empty if it is mixed or too short."""
    start = text[:_LOOKED_AT]
    counts = {name: len(letters.findall(start)) for name, letters in SCRIPTS.items()}
    total = sum(counts.values())
    name, count = max(counts.items(), key=lambda item: item[1])
    return name if total >= _FEWEST and count >= _SHARE * total else ""
