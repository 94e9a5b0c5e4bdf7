"""Reads a model's reply as the items of a recipe, or says what is wrong with it, in the language of the prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data_modules.wording import kind_of
from lit_sft.scripts import Language
from lit_sft.synthesis.recipe import ReplyForm
from lit_sft.synthesis.thoughts import answer_of

_FENCE = re.compile(r"```(?:json)?[^\S\n]*\n(.*?)\n?\s*```", re.DOTALL | re.IGNORECASE)
_NOTHING = re.compile(r"[\s.…。]*")
_LEAST_COPIED = 18
"""Bytes of a text that counts as copied: six characters of Chinese, three or four words of English."""
_SURROGATE = re.compile("[\ud800-\udfff]")

REASONS: dict[str, dict[Language, str]] = {
    "empty_reply": {"en": "it is empty.", "zh": "回复是空的。"},
    "cut_off": {
        "en": "it was cut off at the limit of {limit} tokens; write less.",
        "zh": "回复超过了 {limit} 个 token 的上限，被截断了，请写短一些。",
    },
    "not_json": {
        "en": "it is not a JSON object ({problem}).",
        "zh": "它不是一个 JSON 对象（{problem}）。",
    },
    "not_object": {"en": "it is {found}, not a JSON object.", "zh": "它不是一个 JSON 对象。"},
    "duplicate_field": {"en": "the field '{name}' occurs twice.", "zh": "字段“{name}”出现了两次。"},
    "missing_field": {"en": "the field '{name}' is missing{place}.", "zh": "缺少字段“{name}”{place}。"},
    "unknown_field": {
        "en": "the field '{name}' does not belong there{place}.",
        "zh": "不应该有字段“{name}”{place}。",
    },
    "wrong_type": {
        "en": "'{name}' is not {expected}{place}.",
        "zh": "“{name}”不是{expected}{place}。",
    },
    "empty_field": {"en": "the field '{name}' is empty{place}.", "zh": "字段“{name}”是空的{place}。"},
    "not_unicode": {
        "en": "the field '{name}' is not valid Unicode{place}.",
        "zh": "字段“{name}”不是有效的 Unicode{place}。",
    },
    "wrong_count": {
        "en": "'{name}' has {found}; expected {fewest} to {most}.",
        "zh": "“{name}”里有 {found} 个，应该有 {fewest} 到 {most} 个。",
    },
    "copied_prompt": {
        "en": "'{name}' is copied from the rules of this request{place}.",
        "zh": "“{name}”抄了这个请求里的要求{place}。",
    },
    "repeats_given": {
        "en": "'{name}' repeats what was given{place}.",
        "zh": "“{name}”重复了已有的内容{place}。",
    },
    "credentials": {
        "en": "it repeats a key or a password.",
        "zh": "它重复了密钥或者密码。",
    },
}
"""What can be wrong with a reply: names, and what the model is told."""

_EXPECTED: dict[str, dict[Language, str]] = {
    "text": {"en": "text", "zh": "文字"},
    "list": {"en": "a list", "zh": "列表"},
    "object": {"en": "an object", "zh": "对象"},
}
_PLACE: dict[Language, str] = {"en": " (number {number})", "zh": "（第 {number} 个）"}


class InvalidReplyError(Exception):
    """A reply without the form of the recipe.

    Args:
        fault: A name in `REASONS`.
        values: What its sentence mentions.
    """

    def __init__(self, fault: str, **values: Any) -> None:
        super().__init__(fault)
        self.fault, self.values = fault, values

    def reason(self, language: Language) -> str:
        """A sentence about it."""
        values = dict(self.values)
        number = values.get("number")
        values["place"] = "" if number is None else _PLACE[language].format(number=number)
        if "expected" in values:
            values["expected"] = _EXPECTED[values["expected"]][language]
        return REASONS[self.fault][language].format(**values)


@dataclass(frozen=True)
class ReplyText:
    """A reply as it came.

    Attributes:
        text: Its text.
        is_cut: Whether it was cut off at the limit of tokens.
        limit: That limit.
        is_masked: Whether a credential in it was masked.
    """

    text: str
    is_cut: bool = False
    limit: int = field(default=0, compare=False)
    is_masked: bool = False


def read_items(reply: ReplyText, form: ReplyForm) -> list[dict[str, str]]:
    """The items of a reply, each with the fields of the form, without white space around them.

    The JSON object may be in a fenced block, and thoughts (<think>) before it are left out. Nothing else is
    repaired: a reply that is nearly right is asked again.

    Raises:
        InvalidReplyError: If the reply does not have the form.
    """
    if reply.is_masked:
        raise InvalidReplyError("credentials")
    if not reply.text.strip() and not reply.is_cut:
        raise InvalidReplyError("empty_reply")
    try:
        value = _object(reply.text)
    except InvalidReplyError:
        if reply.is_cut:
            raise InvalidReplyError("cut_off", limit=reply.limit) from None
        raise
    if form.items is None:
        return [_item(value, form.fields, None)]
    _check_fields(value, [form.items], None)
    items = value[form.items]
    if not isinstance(items, list):
        raise InvalidReplyError("wrong_type", name=form.items, expected="list")
    fewest, most = form.count
    if not fewest <= len(items) <= most:
        raise InvalidReplyError("wrong_count", name=form.items, found=len(items), fewest=fewest, most=most)
    return [_item(item, form.fields, number, of=form.items) for number, item in enumerate(items, 1)]


def check_not_copied(items: list[dict[str, str]], prompt: str, given: Mapping[str, str]) -> None:
    """Refuse items that repeat a rule of the prompt, as small models do, or the question or answer that was given.

    Args:
        items: The items of a reply.
        prompt: The prompt, with placeholders.
        given: What they stand for.

    Raises:
        InvalidReplyError: If a text is part of the prompt, and is long enough to be no accident, or is a given text.
    """
    rules, texts = _plain(prompt), {_plain(text) for text in given.values()}
    for number, item in enumerate(items, 1):
        for name, value in item.items():
            text = _plain(value)
            # in bytes: a Chinese character says as much as a few letters
            if len(text.encode()) >= _LEAST_COPIED and text in rules:
                raise InvalidReplyError("copied_prompt", name=name, number=number)
            if text in texts:
                raise InvalidReplyError("repeats_given", name=name, number=number)


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _object(text: str) -> dict[str, Any]:
    """The JSON object of a reply."""
    text = answer_of(text)
    blocks = _FENCE.findall(text)
    try:
        value = json.loads(blocks[0] if len(blocks) == 1 else text, object_pairs_hook=_unique)
    except RecursionError:
        raise InvalidReplyError("not_json", problem="nested too deeply") from None
    except ValueError as error:
        raise InvalidReplyError("not_json", problem=str(error)) from None
    if not isinstance(value, dict):
        raise InvalidReplyError("not_object", found=kind_of(value))
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise InvalidReplyError("duplicate_field", name=_shown(name))
        values[name] = value
    return values


def _item(value: Any, fields: list[str], number: int | None, *, of: str = "") -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise InvalidReplyError("wrong_type", name=of, expected="object", number=number)
    _check_fields(value, fields, number)
    return {name: _text(value[name], name, number) for name in fields}


def _check_fields(value: Mapping[str, Any], fields: list[str], number: int | None) -> None:
    for name in fields:
        if name not in value:
            raise InvalidReplyError("missing_field", name=name, number=number)
    for name in value:
        if name not in fields:
            raise InvalidReplyError("unknown_field", name=_shown(name), number=number)


def _text(value: Any, name: str, number: int | None) -> str:
    if not isinstance(value, str):
        raise InvalidReplyError("wrong_type", name=name, expected="text", number=number)
    if _NOTHING.fullmatch(value):  # also the dots of the form, copied
        raise InvalidReplyError("empty_field", name=name, number=number)
    if _SURROGATE.search(value):
        raise InvalidReplyError("not_unicode", name=name, number=number)
    return value.strip()


def _shown(name: str) -> str:
    return _SURROGATE.sub("?", name)[:60]
