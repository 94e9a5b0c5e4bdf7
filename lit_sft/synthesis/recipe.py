"""Recipes, read from YAML: prompts in English and Chinese, the form of the reply, the conversations made from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Template
from typing import Any, Literal

from data_modules.errors import UserError
from data_modules.wording import did_you_mean, listed
from lit_sft.files import digest, read_yaml
from lit_sft.scripts import Language
from lit_sft.settings.dataclass_values import dataclass_from
from lit_sft.synthesis.candidate import Turn

Reads = Literal["article", "pair", "question", "tasks"]

PLACEHOLDERS: dict[Reads, tuple[str, ...]] = {
    "article": ("article",),
    "pair": ("article", "question", "answer"),
    "question": ("article", "question"),
    "tasks": ("examples",),
}
"""What a prompt may show, by what the recipe reads."""

SUBJECTS: dict[Reads, str] = {"article": "article", "pair": "pair", "question": "question", "tasks": "request"}
"""What subjects are called, by what the recipe reads."""

_OF_REPLY = ("format", "fewest", "most")
FOLDER = Path(__file__).parent / "recipes"
_NAME = re.compile("[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class ReplyForm:
    """The JSON object that a model must reply with.

    Attributes:
        fields: Text fields of an item.
        items: The field with the list of items. None: the reply is a single item.
        count: Fewest and most items of that list.
    """

    fields: list[str]
    items: str | None = None
    count: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        for name in (*self.fields, *([self.items] if self.items else [])):
            if not _NAME.fullmatch(name):
                raise UserError(f"fields {name!r}: expected names such as question.")
        if not self.fields or len(set(self.fields)) < len(self.fields):
            raise UserError(f"fields {self.fields}: expected at least one name, each once.")
        if not 1 <= self.count[0] <= self.count[1]:
            raise UserError(f"count {list(self.count)}: expected the fewest and the most items, such as [3, 6].")
        if self.items is None and self.count != (1, 1):
            raise UserError(f"count {list(self.count)}: needs `items`, the name of the field with the items.")

    def schema(self) -> dict[str, Any]:
        """The JSON schema of the reply."""
        item = _object({name: {"type": "string"} for name in self.fields})
        if self.items is None:
            return item
        fewest, most = self.count
        return _object({self.items: {"type": "array", "items": item, "minItems": fewest, "maxItems": most}})

    def example(self) -> str:
        """The form as a prompt shows it."""
        item = json.dumps(dict.fromkeys(self.fields, "..."))
        if self.items is None:
            return item
        return f'{{"{self.items}": [{item}{", ..." if self.count[1] > 1 else ""}]}}'


@dataclass(frozen=True)
class Wording:
    """A recipe in one language.

    Attributes:
        prompt: The request; `$article` and other names stand for what it is about.
        again: What to say about a reply that does not have the form; `$reason` says why.
        limits: Numbers that the prompt shows, such as `question_length`, by name.
    """

    prompt: str
    again: str
    limits: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """How to ask a model for conversations, and how to make them of its reply.

    Attributes:
        about: In one sentence.
        reads: What a request is about: an `article`; a `pair` of a question and its answer, or a `question`, perhaps
            with the article that it is about; or a few seed `tasks`.
        reply: The form of the reply.
        turns: Question and answer of each turn, in terms of an item of the reply and of the question and answer
            that were read.
        en: The recipe in English.
        zh: The recipe in Chinese.
        checks: The rules that refuse what the model made, unless the settings name others.
        name: Its name; a file's name without the suffix.
    """

    about: str
    reads: Reads
    reply: ReplyForm
    turns: list[list[str]]
    en: Wording | None = None
    zh: Wording | None = None
    checks: list[Any] = field(default_factory=list)
    name: str = ""

    def __post_init__(self) -> None:
        if not self.languages:
            raise UserError("no prompts: expected `en`, `zh` or both.")
        clash = set(self.reply.fields) & set(PLACEHOLDERS[self.reads])
        if clash:
            raise UserError(
                f"reply.fields {listed(sorted(clash))}: also what the recipe reads; choose another name, such as "
                f"new_{min(clash)}."
            )
        _check_turns(self)
        for language in self.languages:
            _check_wording(self, language)

    @property
    def languages(self) -> list[Language]:
        """The languages that it has prompts in."""
        named: list[tuple[Language, Wording | None]] = [("en", self.en), ("zh", self.zh)]
        return [language for language, wording in named if wording is not None]

    @property
    def subject(self) -> str:
        """What a request is about, in one word."""
        return SUBJECTS[self.reads]

    @property
    def shows_article(self) -> bool:
        """Whether a prompt shows the article."""
        return any("article" in _names(self.wording(language).prompt, "prompt") for language in self.languages)

    @property
    def digest(self) -> str:
        """A digest of everything that decides what is asked and what is made of the reply."""
        wordings = {language: vars(self.wording(language)) for language in self.languages}
        return digest([self.reads, vars(self.reply), self.turns, wordings])

    def wording(self, language: Language) -> Wording:
        """The recipe in a language that it has prompts in."""
        wording = self.en if language == "en" else self.zh
        assert wording is not None, "languages are checked when articles are read"
        return wording

    def prompt(self, language: Language, given: Mapping[str, str]) -> str:
        """The request about what was read."""
        return Template(self.wording(language).prompt).substitute(self._values(language), **given)

    def again(self, language: Language, reason: str) -> str:
        """What to say about a reply that does not have the form."""
        return Template(self.wording(language).again).substitute(self._values(language), reason=reason)

    def conversation(self, given: Mapping[str, str], item: Mapping[str, str]) -> tuple[Turn, ...]:
        """The turns made of an item of the reply."""
        values = {**given, **item}
        return tuple(
            (Template(question).substitute(values), Template(answer).substitute(values))
            for question, answer in self.turns
        )

    def with_limits(self, limits: Mapping[str, int]) -> Recipe:
        """The recipe with other numbers in its prompts.

        Raises:
            UserError: If it has no limit of that name.
        """
        known = {name for language in self.languages for name in self.wording(language).limits}
        for name, value in limits.items():
            if name not in known:
                has = f"has {', '.join(sorted(known))}" if known else "has none"
                raise UserError(f"--limits: recipe {self.name} has no limit '{name}'; it {has}.")
            if value < 1:
                raise UserError(f"--limits: {name} is {value}; expected at least 1.")
        changed: dict[str, Any] = {
            language: replace(own, limits={name: limits.get(name, value) for name, value in own.limits.items()})
            for language in self.languages
            for own in [self.wording(language)]
        }
        return replace(self, **changed)

    def _values(self, language: Language) -> dict[str, str]:
        fewest, most = self.reply.count
        numbers = {"fewest": fewest, "most": most, **self.wording(language).limits}
        return {"format": self.reply.example(), **{name: str(value) for name, value in numbers.items()}}


def recipe_names() -> list[str]:
    """The recipes that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_recipe(name: str) -> Recipe:
    """Read a recipe.

    Args:
        name: A name in `recipe_names`, or a YAML file.

    Raises:
        UserError: If there is no such recipe, or something in it is wrong.
    """
    is_file = name.endswith((".yaml", ".yml"))
    if not is_file and name not in recipe_names():
        hint = did_you_mean(name, recipe_names()) or f"expected {', '.join(recipe_names())}, or a YAML file."
        raise UserError(f"--recipe {name}: no such recipe; {hint}")
    path = Path(name) if is_file else FOLDER / f"{name}.yaml"
    values = read_yaml(path, advice="Recipes of the project are named without .yaml.", usual=FOLDER)
    try:
        return _recipe(values, path.stem)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _recipe(values: Any, name: str) -> Recipe:
    if not isinstance(values, dict):
        raise UserError("expected names and values, such as `reads: article`.")
    if "name" in values:
        raise UserError("name: not a setting; the name of the file is the recipe's name.")
    parts: dict[str, Any] = {"name": name}
    for part, kind in (("reply", ReplyForm), ("en", Wording), ("zh", Wording)):
        if part in values:
            parts[part] = dataclass_from(kind, values[part], place=part)
    values = {key: value for key, value in values.items() if value is not None}
    if "checks" in values:  # their options have any type
        parts["checks"] = values["checks"]
    return dataclass_from(Recipe, {key: value for key, value in values.items() if key not in parts}, converted=parts)


def _check_turns(recipe: Recipe) -> None:
    known = {*recipe.reply.fields, *PLACEHOLDERS[recipe.reads]} - {"article", "examples"}
    if not recipe.turns or not all(len(turn) == 2 for turn in recipe.turns):
        raise UserError('turns: expected a list of [question, answer], such as [["$question", "$answer"]].')
    for text in (text for turn in recipe.turns for text in turn):
        _check_names(text, known, place="turns")
    unused = set(recipe.reply.fields) - {name for turn in recipe.turns for text in turn for name in _names(text, "")}
    if unused:
        raise UserError(f"turns: the reply's field ${min(unused)} is in no turn; use it, or remove it from the reply.")


def _check_wording(recipe: Recipe, language: Language) -> None:
    wording = recipe.wording(language)
    own = PLACEHOLDERS[recipe.reads]
    for name, value in wording.limits.items():
        if name in (*own, *_OF_REPLY, "reason") or not _NAME.fullmatch(name) or value < 1:
            raise UserError(f"{language}.limits: {name}: {value}; expected a new name and a number of at least 1.")
    _check_names(wording.prompt, {*own, *_OF_REPLY, *wording.limits}, place=f"{language}.prompt")
    _check_names(wording.again, {*_OF_REPLY, *wording.limits, "reason"}, place=f"{language}.again")
    needed = [name for name in own if name != "article" or recipe.reads == "article"]
    shown = _names(wording.prompt, f"{language}.prompt")
    if missing := [name for name in needed if name not in shown]:
        raise UserError(f"{language}.prompt: does not show ${missing[0]}, which the recipe reads.")
    if "format" not in shown:
        raise UserError(f"{language}.prompt: does not show $format, the form that the reply must have.")
    if "reason" not in _names(wording.again, f"{language}.again"):
        raise UserError(f"{language}.again: does not show $reason, which says what was wrong with the reply.")


def _check_names(text: str, known: set[str], *, place: str) -> None:
    for name in _names(text, place):
        if name not in known:
            hint = did_you_mean(name, known, sign="$") or f"expected {', '.join(f'${each}' for each in sorted(known))}."
            raise UserError(f"{place}: ${name} is not known here; {hint}")


def _names(text: str, place: str) -> list[str]:
    template = Template(text)
    if not template.is_valid():
        raise UserError(f"{place}: has a $ without a name; write $$ for a dollar sign.")
    return template.get_identifiers()


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def all_recipes() -> Iterator[Recipe]:
    """Every recipe that comes with the project."""
    return map(read_recipe, recipe_names())
