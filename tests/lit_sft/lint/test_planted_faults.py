"""Every rule about records finds the fault planted for it, counts it once, and no other rule fires."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data_modules.sft_data_module import SFTDataModule
from lit_sft.lint.data_lint import lint_data
from lit_sft.lint.findings import Findings
from lit_sft.lint.rules import RULES
from tests.lit_sft.lint.conftest import CLEAN, WITH_TOOLS, Lint, byte_level, chat, fired

LONG = " ".join(f"Stop {number} is called Halt {number * number}." for number in range(60))
"""A text without repetition, of 1,500 characters."""

STORY = "The miller's cat slept on the warm stones behind the bakery until the church bells rang at noon. "

PLANTED: dict[str, list[dict[str, Any]]] = {
    "invalid-record": [{"messages": "none"}],
    "empty-answer": [chat("How are you?", "")],
    "short-answer": [chat("How are you?", "...")],
    "repeated-answer": [chat("How are you?", "Well. " + "I am fine. " * 12)],
    "marker-in-content": [chat("How are you?", "Fine.\n### Response: and you?")],
    "mojibake": [chat("What did she say?", "She said: \u00e2\u20ac\u0153caf\u00c3\u00a9\u00e2\u20ac\u009d.")],
    "replacement-character": [chat("What did she say?", "She said caf\ufffd.")],
    "control-character": [chat("What did she say?", "She said\x08 nothing.")],
    "invisible-character": [chat("What did she say?", "Not\u200bhing.")],
    "mixed-scripts": [chat("What did she say?", "That the b\u0430nk was closed.")],
    "answer-script": [
        chat("Where is the railway station?", "\u8f66\u7ad9\u5728\u8001\u78e8\u574a\u7684\u65c1\u8fb9\u3002")
    ],
    "duplicate": [CLEAN[1]],
    "duplicate-normalised": [chat("name three fruits", "Apple, Pear, and  Plum!")],
    "contradictory-answers": [chat("Name three fruits.", "Cherry, fig and grape.")],
    "near-duplicate": [
        chat("Tell me a story.", STORY * 2 + "Then it went home."),
        chat("Tell me a short story.", STORY * 2 + "Then it went away."),
    ],
    "nothing-supervised": [
        {
            "messages": [
                *chat("Where do geese go?", "South.", "When?")["messages"],
                {"role": "assistant", "content": "In autumn.", "weight": 0},
            ]
        }
    ],
}
"""For each rule, rows with the fault that it must find once. The settings are the same for all."""


@pytest.mark.parametrize("rule", ["short-answer", "mixed-scripts", "duplicate", "contradictory-answers"])
@pytest.mark.parametrize("label", [True, False])
def test_a_bad_answer_is_checked_like_any_other_but_not_compared(lint: Lint, rule: str, label: bool) -> None:
    rows = [{**row, "label": True} for row in CLEAN] + [{**row, "label": label} for row in PLANTED[rule]]
    is_about_others = rule in ("duplicate", "contradictory-answers")
    assert fired(lint(rows)) == ({} if is_about_others and not label else {rule: 1})


def test_rows_that_a_convention_drops_are_counted(lint: Lint) -> None:
    report = lint(CLEAN, convention="axolotl:roles_to_train=system")
    assert fired(report) == {"nothing-supervised": len(CLEAN)}


def test_a_rule_that_is_switched_off_is_not_counted(lint: Lint) -> None:
    settings = {"convention": "axolotl:train_on_eos=none", "template": "chatml"}
    assert fired(lint(CLEAN, **settings))["end-token-unsupervised"] == len(CLEAN)
    assert fired(lint(CLEAN, rules=frozenset(("nothing-supervised",)), **settings)) == {}


@pytest.mark.parametrize("rule", PLANTED)
def test_planted_fault_is_found_once_and_nothing_else(rule: str, lint: Lint) -> None:
    assert fired(lint([*CLEAN, *PLANTED[rule]])) == {rule: 1}


def test_rows_without_faults_have_no_findings(lint: Lint) -> None:
    report = lint(CLEAN)
    assert (fired(report), report.rows, report.findings.not_run) == ({}, {"train": len(CLEAN)}, {})


def test_tools_and_thinking_without_faults_have_no_findings(lint: Lint) -> None:
    thinking = chat("Which is larger, 7 or 9?", "Nine.", "And 11?", "Eleven.")
    thinking["messages"][1]["reasoning_content"] = "Seven is smaller."
    report = lint([*CLEAN, WITH_TOOLS, thinking], max_length=4096)
    assert (fired(report), report.findings.not_run) == ({}, {})


def test_supervised_tool_result_is_found(lint: Lint) -> None:
    found = fired(lint([WITH_TOOLS], max_length=4096, prompt_weight=0.1, mask="output_only"))
    assert found == {"tool-result-supervised": 1, "template-supervised": 1}


def test_found_example_says_where_and_what(lint: Lint) -> None:
    found = lint([*CLEAN, *PLANTED["mixed-scripts"]]).findings.examples["mixed-scripts"]
    assert [(each.origin.rpartition(":")[2], each.detail) for each in found] == [
        (str(len(CLEAN) + 1), "'\u0430' is U+0430, turn 2 (assistant)")
    ]


def test_long_answer_is_found(lint: Lint) -> None:
    long = " ".join(map(str, range(5000)))
    assert fired(lint([*CLEAN, chat("Count.", long)], max_length=10**6)) == {"long-answer": 1}


def test_answer_cut_by_the_limit_is_found(lint: Lint) -> None:
    assert fired(lint([*CLEAN, chat("List the stops.", LONG)])) == {"answer-truncated": 1}


def test_prompt_cut_by_the_limit_is_found(lint: Lint) -> None:
    rows = [*CLEAN, chat(f"{LONG} Which is the last?", "Halt 3481.")]
    assert fired(lint(rows)) == {"prompt-truncated": 1}


def test_answer_dropped_by_the_limit_is_found(lint: Lint) -> None:
    assert fired(lint([*CLEAN, chat("List the stops.", LONG)], over_long="drop")) == {"answer-truncated": 1}


def test_different_system_prompts_are_reported_with_their_shares(lint: Lint) -> None:
    rows = [*CLEAN, chat("How old is the mill?", "Two hundred years.", system="Be brief.")]
    report = lint(rows)
    assert fired(report) == {"system-prompts": len(rows)}
    details = [found.detail for found in report.findings.examples["system-prompts"]]
    assert details == ["6 of 7 (85.7%) with no system prompt", "1 of 7 (14.3%) with this system prompt"]


def test_everything_supervised_is_found(lint: Lint) -> None:
    assert fired(lint(CLEAN, mask="whole_sequence")) == {"everything-supervised": len(CLEAN)}


def test_supervised_template_is_found(lint: Lint) -> None:
    assert fired(lint(CLEAN, prompt_weight=0.1))["everything-supervised"] == len(CLEAN) - 1
    # of the two answers of the fourth row only the last is supervised, so not everything is
    assert fired(lint(CLEAN, prompt_weight=0.1))["template-supervised"] == 1


def test_row_in_two_splits_is_found_in_every_likeness(lint: Lint, write: Callable[..., str]) -> None:
    held_out = [CLEAN[0], chat("name three fruits", "apple; pear; plum"), chat("Is seven a prime number?", "No.")]
    report = lint(CLEAN, val=write("val.jsonl", held_out))
    # "and" is missing, so the second row is only the same prompt
    assert fired(report) == {"split-leak": 3}
    details = [found.detail.partition(" /")[0] for found in report.findings.examples["split-leak"]]
    assert details == [
        "the same conversation as",
        "the same prompt, with another answer, as",
        "the same prompt, with another answer, as",
    ]


def test_prompt_that_inference_encodes_otherwise_is_found(lint: Lint) -> None:
    # the header ends with a line break and the first answer begins with one: joined by everybody but the encoder
    rows = [*CLEAN, chat("How are you?", "\nFine.", "Really?", "Yes.")]
    tokenizer = byte_level(("\u010a", "\u010a"))
    assert fired(lint(rows, tokenizer=tokenizer, template="plain"))["prompt-differs"] == 1


def test_marker_in_a_question_changes_the_prompt_at_inference(lint: Lint) -> None:
    rows = [*CLEAN, chat("What does <|im_end|> mean?", "It ends a turn.")]
    assert fired(lint(rows)) == {"prompt-differs": 1, "marker-in-content": 1}


def test_token_across_the_border_of_the_answer_is_found(lint: Lint) -> None:
    rows = [*CLEAN, chat("How are you?", "\nFine.")]
    report = lint(
        rows, tokenizer=byte_level(("\u010a", "\u010a")), template="plain", rules=frozenset({"merged-border"})
    )
    assert fired(report) == {"merged-border": 1}
    assert report.findings.examples["merged-border"][0].detail == "'\\n\\n'"


def test_text_unknown_to_the_tokenizer_is_found(lint: Lint) -> None:
    characters = ["[UNK]", "</s>", "\n", *map(chr, range(32, 127))]
    backend = Tokenizer(models.WordLevel({each: index for index, each in enumerate(characters)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="[UNK]")
    report = lint([*CLEAN, chat("Who?", "M\u00e9.")], tokenizer=tokenizer, template="plain")
    assert fired(report) == {"unknown-text": 1}
    assert "'\u00e9'" in report.findings.examples["unknown-text"][0].detail


def test_end_token_that_the_model_does_not_stop_on_is_found(write: Callable[..., str], tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": 256}))
    found = {}
    for template in ("plain", "chatml"):
        data = SFTDataModule(write("rows.jsonl", CLEAN), tokenizer=str(tmp_path / "model"), template=template)  # type: ignore[arg-type]
        found[template] = fired(lint_data(data, Findings(frozenset(RULES)), has_tokenizer=True))
    assert found == {"plain": {}, "chatml": {"end-token-mismatch": 1}}


def test_pad_token_that_is_the_end_token_is_noted(lint: Lint) -> None:
    tokenizer = byte_level()
    tokenizer.pad_token = "<|im_end|>"
    assert fired(lint(CLEAN, tokenizer=tokenizer)) == {"pad-is-end": 1}


def test_fields_that_nothing_reads_are_noted(lint: Lint) -> None:
    rows = [CLEAN[0], {**CLEAN[1], "topic": "fruit"}]
    assert fired(lint(rows)) == {"unused-fields": 1}


def test_rules_that_need_a_tokenizer_are_listed_as_not_run(lint: Lint) -> None:
    report = lint([*CLEAN, *PLANTED["duplicate"]], tokenizer="")
    assert fired(report) == {"duplicate": 1}
    needed = {rule.name for rule in RULES.values() if rule.subject in ("tokens", "labels")}
    assert report.findings.not_run.keys() == needed


def test_only_chosen_rules_fire(lint: Lint) -> None:
    rows = [*CLEAN, *PLANTED["duplicate"], *PLANTED["mojibake"]]
    assert fired(lint(rows, rules=frozenset({"mojibake"}))) == {"mojibake": 1}


def test_no_end_token_in_any_row_is_found(lint: Lint, monkeypatch: pytest.MonkeyPatch) -> None:
    from lit_sft.lint import labels

    # as if an encoder left the end token out of every example
    monkeypatch.setattr(labels, "is_stop_trained", lambda row: False)
    monkeypatch.setattr("lit_sft.lint.data_lint.is_stop_trained", lambda row: False)
    assert fired(lint(CLEAN)) == {"end-token-unsupervised": len(CLEAN)}


def test_template_that_reads_thinking_from_its_field_has_no_findings(
    lint: Lint, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}"
    last += "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    answer = "{% if loop.index0 > ns.last %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    own = (
        f"{last}{{% for m in messages %}}<|im_start|>{{{{ m.role }}}}\n{{% if m.role == 'assistant' %}}{answer}"
        "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    row = chat("Which is larger, 7 or 9?", "Nine.", "And 11?", "Eleven.")
    for place in (1, 3):
        row["messages"][place]["reasoning_content"] = "One is smaller."
    with monkeypatch.context() as patch:
        patch.setattr(tokenizer, "chat_template", own)
        assert fired(lint([row], template="tokenizer", rules=frozenset({"prompt-differs", "invalid-record"}))) == {}
