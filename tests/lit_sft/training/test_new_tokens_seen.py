"""The lines about new tokens: their ids, and those that the training data never has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from data_modules.sft_data_module import SFTDataModule
from data_modules.text_data_module import TextDataModule
from lit_sft.training.new_tokens import lines_about

NEW: dict[str, Any] = {"add_tokens": ["Rowan"], "add_special_tokens": ["<tool_call>"]}


def test_new_tokens_that_a_template_writes_are_trained(make_data: Callable[..., SFTDataModule]) -> None:
    call = {"type": "function", "function": {"name": "look", "arguments": {"who": "Rowan"}}}
    messages = [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "x"},
        {"role": "assistant", "content": "Rowan."},
    ]
    data = make_data([{"messages": messages}], **NEW)
    assert lines_about(["Rowan", "<tool_call>"], data) == ["tokens  2 new tokens from id 259 on: Rowan, <tool_call>"]


def test_special_tokens_that_only_texts_have_are_named(make_data: Callable[..., SFTDataModule]) -> None:
    data = make_data([{"instruction": "Who?", "output": "<tool_call>Rowan"}], **NEW)
    _, warning = lines_about(["Rowan", "<tool_call>"], data)
    assert warning.startswith("warning <tool_call>: not in the training data, so hardly trained. A special token that")


def test_documents_are_searched_too(make_text: Callable[..., TextDataModule]) -> None:
    data = make_text(["Rowan and the others. " * 20] * 8, **NEW)
    _, warning = lines_about(["Rowan", "<tool_call>"], data)
    assert warning.startswith("warning <tool_call>: not in")
