"""Every cleaning rule by name: reading a list of rules, and the table of docs/cleaning.md."""

from __future__ import annotations

import inspect
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any, Protocol

from data_modules.cleaning.characters import ControlCharacters, LatinWidth, LineEnds, Nfc, WhiteSpace
from data_modules.cleaning.chinese import ChineseScript, opencc_version
from data_modules.cleaning.duplicates import ExactDuplicates, NearDuplicates, SetRule
from data_modules.cleaning.edits import Drop, Edit
from data_modules.cleaning.filters import BoilerplateLines, MaxLength, MinLength, Repetition
from data_modules.cleaning.markup import ConversionMarkup, EmptyBrackets, FirstHeading, Tags
from data_modules.cleaning.options import help_of, read_rule
from data_modules.cleaning.width import PunctuationWidth
from data_modules.errors import UserError
from data_modules.wording import kind_of


class Rule(Protocol):
    """A rule about single documents: a frozen dataclass of its options, called with a text."""

    def __call__(self, text: str) -> list[Edit] | Drop:
        """The edits of a text, in order; none if it is clean. Or the decision to drop it."""


RULES: dict[str, Callable[..., Rule]] = {
    "line_ends": LineEnds,
    "control_characters": ControlCharacters,
    "nfc": Nfc,
    "tags": Tags,
    "conversion_markup": ConversionMarkup,
    "chinese_script": ChineseScript,
    "latin_width": LatinWidth,
    "first_heading": FirstHeading,
    "boilerplate_lines": BoilerplateLines,
    "empty_brackets": EmptyBrackets,
    "punctuation_width": PunctuationWidth,
    "white_space": WhiteSpace,
    "min_length": MinLength,
    "max_length": MaxLength,
    "repetition": Repetition,
}
"""The rules about single documents, in the order in which they are best applied."""

SET_RULES: dict[str, Callable[..., SetRule]] = {
    "exact_duplicates": ExactDuplicates,
    "near_duplicates": NearDuplicates,
}
"""The rules about the whole set of documents. They come last."""

_VERSION = 3
"""Bump when a rule changes a text differently."""


def read_rules(items: Any, place: str) -> tuple[list[tuple[str, Rule]], list[tuple[str, SetRule]]]:
    """Read a list of rules.

    Args:
        items: Names of rules, or mappings of one name to the options of that rule.
        place: The option as the user would type it.

    Returns:
        The name and the rule of each item, in order: those about single documents, and those about the set.

    Raises:
        UserError: If a rule or an option is unknown, a value is impossible, or a rule about the set is not at the end.
    """
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise UserError(f"{place} is {kind_of(items, 'a mapping')}; expected a list of rules: [nfc, white_space].")
    known: dict[str, Callable[..., Any]] = {**RULES, **SET_RULES}
    example = "{min_length: {characters: 20}}"
    rules = [read_rule(item, f"{place}[{index}]", place, known, example) for index, item in enumerate(items)]
    num_single = sum(name in RULES for name, _ in rules)
    for (name, _), (later, _) in pairwise(rules):
        if name in SET_RULES and later in RULES:
            raise UserError(
                f"{place}: {name} is before {later}; duplicates are found among clean documents, so list {name} after "
                f"{later}."
            )
    return rules[:num_single], rules[num_single:]


def identity_of(rules: Sequence[tuple[str, Any]]) -> list[Any]:
    """What decides how texts are cleaned, as JSON values: rules with their options, and versions.

    Args:
        rules: The name and the rule of each item, in order.
    """
    versions: dict[str, Any] = {"rules": _VERSION}
    names = {name for name, _ in rules}
    if "nfc" in names:
        versions["unicode"] = unicodedata.unidata_version
    if "chinese_script" in names:
        versions["opencc"] = opencc_version()
    options = [
        [name, {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(rule).items()}]
        for name, rule in rules
    ]
    return [versions, *options]


def describe(rule: Any) -> str:
    """What a rule does: its docstring, in one line."""
    return " ".join(inspect.cleandoc(rule.__doc__).split())


def rules_table() -> str:
    """All rules as a Markdown table with their options."""
    rows = ["| rule | what it does | options |", "|---|---|---|"]
    every: dict[str, Any] = {**RULES, **SET_RULES}
    for name, rule in every.items():
        options = "<br>".join(f"`{key}` ({default}): {help}" for key, default, help in help_of(rule))
        rows.append(f"| `{name}` | {describe(rule)} | {options} |")
    return "\n".join(rows)
