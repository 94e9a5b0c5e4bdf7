from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.rendering.jinja_source import ChatOptions, with_options
from data_modules.rendering.templates import resolve_template, tokenizer_with_options
from data_modules.sft_data_module import SFTDataModule
from lit_sft.models.saving import exported_tokenizer
from tests.conftest import alpaca_rows

_CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}"
DATED = (
    "{%- if strftime_now is defined %}{%- set today = strftime_now('%d %b %Y') %}{%- else %}{%- set today = 'never' %}"
    '{%- endif %}\nToday: {{ today }}, {{ strftime_now( "%Y-%m-%d" ) }}\n' + _CHAT + "assistant: {% endif %}"
)
THINKS = _CHAT + "assistant: {% if enable_thinking is defined and not enable_thinking %}(no) {% endif %}{% endif %}"
COUNTS = _CHAT + "assistant: {{ effort }}{% if level is defined %}{{ level + 1 }}{% endif %}: {% endif %}"

PROMPT = Conversation((Message(Role.USER, "hi"),), "f:1")


def rendered(tokenizer: PreTrainedTokenizerFast, jinja: str, options: ChatOptions = ChatOptions()) -> str:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = jinja
    template = resolve_template("auto", tokenizer_with_options(tokenizer, "auto", options))
    return "".join(segment.text for segment in template.render(PROMPT))


def test_date_is_the_same_every_day(tokenizer: PreTrainedTokenizerFast) -> None:
    assert rendered(tokenizer, DATED) == "Today: 01 Jan 2025, 2025-01-01\nuser: hi<|im_end|>assistant: "


def test_date_can_be_set(tokenizer: PreTrainedTokenizerFast) -> None:
    assert rendered(tokenizer, DATED, ChatOptions("2026-01-31")).startswith("Today: 31 Jan 2026, 2026-01-31\n")


@pytest.mark.parametrize("date", ["31.01.2026", "2026-02-30", "today"])
def test_date_that_is_none_is_refused(date: str) -> None:
    with pytest.raises(UserError, match=f"--data.template_date {date}: expected a date such as 2025-01-01"):
        ChatOptions(date)


def test_date_of_a_template_that_prints_none_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"template_date 2026-01-31: the tokenizer's chat template prints no date"):
        rendered(tokenizer, THINKS, ChatOptions("2026-01-31"))


def test_date_that_cannot_be_fixed_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match="prints today's date in a way that cannot be fixed to one day"):
        rendered(tokenizer, "{% set f = '%d' %}{{ strftime_now(f) }}" + THINKS)


def test_arguments_are_defaults_of_the_templates_variables(tokenizer: PreTrainedTokenizerFast) -> None:
    assert rendered(tokenizer, THINKS) == "user: hi<|im_end|>assistant: "
    assert rendered(tokenizer, THINKS, ChatOptions(arguments={"enable_thinking": False})).endswith("assistant: (no) ")
    options = ChatOptions(arguments={"effort": 'a "low" one', "level": 2})
    assert rendered(tokenizer, COUNTS, options).endswith('assistant: a "low" one3: ')


def test_arguments_given_to_an_exported_template_win(tokenizer: PreTrainedTokenizerFast) -> None:
    source = with_options(THINKS, ChatOptions(arguments={"enable_thinking": False}))
    messages = [{"role": "user", "content": "hi"}]
    given: dict[str, Any] = {"chat_template": source, "tokenize": False, "add_generation_prompt": True}
    assert tokenizer.apply_chat_template(messages, **given) == "user: hi<|im_end|>assistant: (no) "
    assert tokenizer.apply_chat_template(messages, enable_thinking=True, **given) == "user: hi<|im_end|>assistant: "


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"enable_thinkin": False}, "the tokenizer's chat template has no variable 'enable_thinkin'"),
        ({"enable thinking": False}, "'enable thinking' is False; expected names of variables"),
        ({"enable_thinking": [1]}, r"'enable_thinking' is \[1\]; expected names of variables with a number"),
    ],
)
def test_wrong_arguments_are_refused(
    tokenizer: PreTrainedTokenizerFast, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        rendered(tokenizer, THINKS, ChatOptions(arguments=arguments))


def test_options_of_another_template_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match="but the template is 'chatml'; remove them"):
        tokenizer_with_options(tokenizer, "chatml", ChatOptions("2026-01-31"))


@pytest.mark.parametrize("named", [False, True])
def test_exported_tokenizer_prints_the_trained_date_and_joins_the_input(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, named: bool
) -> None:
    given = copy.deepcopy(tokenizer)
    given.chat_template = {"default": DATED, "other": THINKS} if named else DATED
    data = SFTDataModule("none.json", tokenizer=given, template_date="2026-01-31")
    exported_tokenizer(data).save_pretrained(tmp_path)
    exported = AutoTokenizer.from_pretrained(tmp_path)
    prompt = Conversation((Message(Role.USER, "Translate.", "Bonjour"),), "f:1")
    trained = "".join(segment.text for segment in data.encoder.template.render(prompt))
    assert "31 Jan 2026" in trained
    assert trained.endswith("Translate.\nBonjour<|im_end|>assistant: ")
    for message in ({"content": "Translate.", "input": "Bonjour"}, {"content": "Translate.\nBonjour"}):
        text = exported.apply_chat_template([{"role": "user", **message}], tokenize=False, add_generation_prompt=True)
        assert text == trained
    assert given.chat_template == ({"default": DATED, "other": THINKS} if named else DATED)


def test_template_for_tools_is_dated_identified_and_exported_too(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    given, layouts = copy.deepcopy(tokenizer), []
    for tools in (DATED, DATED + "{# another one #}"):
        given.chat_template = {"default": DATED, "tool_use": tools}
        layouts.append(resolve_template("auto", given).layout)
    assert layouts[0] != layouts[1]
    data = SFTDataModule("none.json", tokenizer=given, template_date="2026-01-31")
    exported_tokenizer(data).save_pretrained(tmp_path)
    exported = AutoTokenizer.from_pretrained(tmp_path)
    tool = {"type": "function", "function": {"name": "add", "description": "Adds."}}
    text = exported.apply_chat_template([{"role": "user", "content": "hi"}], tools=[tool], tokenize=False)
    assert "another one" in exported.chat_template["tool_use"]
    assert text.startswith("Today: 31 Jan 2026, 2026-01-31\n")


def test_options_are_in_the_runs_identity(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(alpaca_rows(30)))
    given = copy.deepcopy(tokenizer)
    given.chat_template = DATED
    prints = set()
    for date in (None, "2025-01-01", "2026-01-31"):
        data = SFTDataModule(
            str(tmp_path / "a.json"), tokenizer=given, template_date=date, cache_dir=str(tmp_path / "cache")
        )
        data.setup("fit")
        prints.add(data.fingerprint)
    assert len(prints) == 2
