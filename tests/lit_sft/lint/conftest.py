"""Rows without any fault, and linting them with one planted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data_modules.sft_data_module import SFTDataModule
from lit_sft.lint.data_lint import lint_data
from lit_sft.lint.findings import Findings, Report
from lit_sft.lint.rules import RULES

Lint = Callable[..., Report]


def chat(*texts: str, system: str = "") -> dict[str, Any]:
    """A record of messages: a question, its answer, the next question ..."""
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]
    return {"messages": [*([{"role": "system", "content": system}] if system else []), *messages]}


CALL = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}

CLEAN = [
    chat("Where is the bakery?", "Next to the old mill, on the left bank of the river."),
    chat("Name three fruits.", "Apple, pear and plum."),
    chat("Is seven a prime number?", "Yes."),
    chat("What is 12 + 30?", "42", "And 12 * 30?", "360"),
    chat("Write a function that doubles x.", "def double(x):\n    return 2 * x"),
    chat("Who wrote this letter?", "It is not signed, so I cannot tell."),
]
"""Rows without any fault."""

WITH_TOOLS: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": "How warm is it in Oslo?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": '{"degrees": 12, "sky": "é & <b>"}'},
        {"role": "assistant", "content": "It is 12 degrees.", "reasoning_content": "Twelve."},
    ],
    "tools": [{"type": "function", "function": CALL["function"] | {"parameters": {}, "description": "<i>"}}],
}
"""A row without any fault: thinking, a call without text, and its result with signs that HTML would escape."""


def fired(report: Report) -> dict[str, int]:
    """The rules that fired, with the number of rows."""
    return {rule.name: report.findings.counts[rule.name] for rule in report.findings.found()}


def byte_level(*merges: tuple[str, str]) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that joins some pairs of characters, with the tokens of ChatML."""
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(characters)}
    for one, other in merges:
        vocabulary[one + other] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=specials[0], model_max_length=10**9)


@pytest.fixture
def lint(write: Callable[..., str], tokenizer: PreTrainedTokenizerFast) -> Lint:
    """Lint rows with a tokenizer whose ids are bytes and a model that stops on whatever is trained."""

    def _lint(rows: list[dict[str, Any]], *, rules: frozenset[str] = frozenset(RULES), **settings: Any) -> Report:
        defaults = {"tokenizer": tokenizer, "template": "chatml", "val_fraction": 0.0, "test_fraction": 0.0}
        given = defaults | {"max_length": 512} | settings
        data = SFTDataModule(write("rows.jsonl", rows), **given)
        return lint_data(data, Findings(rules), has_tokenizer=bool(given["tokenizer"]), is_random=True)

    return _lint
