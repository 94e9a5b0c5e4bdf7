"""Label rules on dumps of other trainers: each planted fault is found, correct labels have none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from data_modules.errors import UserError
from data_modules.records.counts import RecordCounts
from data_modules.records.splits import Sources, read_conversations
from data_modules.rendering.conventions import expected_labels, resolve_convention
from lit_sft.__main__ import main
from lit_sft.lint.dump_lint import lint_dump
from lit_sft.lint.findings import Findings
from lit_sft.lint.rules import RULES
from lit_sft.lint.token_text import TokenText
from tests.conftest import END, IM_END, IM_START, byte_tokenizer
from tests.lit_sft.lint.conftest import CLEAN, fired

QUESTION = [IM_START, *b"user\nHow are you?", IM_END, *b"\n", IM_START, *b"assistant\n"]
ANSWER = [*b"Fine.", IM_END]
TOOL = [IM_START, *b"tool\n12 degrees", IM_END, *b"\n", IM_START, *b"assistant\n"]


def row(*parts: tuple[list[int], bool], padding: int = 0, pad: int = END, **fields: Any) -> dict[str, Any]:
    """A row of parts, each supervised or not, with padding at its end."""
    ids = [index for part, _ in parts for index in part]
    labels = [index if supervised else -100 for part, supervised in parts for index in part]
    return {"input_ids": ids + [pad] * padding, "labels": labels + [-100] * padding, **fields}


GOOD = [
    row((QUESTION, False), (ANSWER, True)),
    row((QUESTION, False), (ANSWER, True), ([*b"\n"], False), padding=3),
    row((QUESTION, False), (ANSWER, True), ([*b"\n"], False), (QUESTION, False), (ANSWER, True), padding=2),
    row((QUESTION, False), (ANSWER, True), ([*b"\n"], False), (TOOL, False), (ANSWER, True)),
]

SHIFTED = {
    "input_ids": [*QUESTION, *ANSWER],
    "labels": [-100] * (len(QUESTION) - 1) + [*ANSWER, -100],
}

FAULTS: dict[str, dict[str, Any]] = {
    "end-token-unsupervised": row((QUESTION, False), (ANSWER[:-1], True), ([IM_END, *b"\n"], False)),
    "pad-masks-end": row((QUESTION, False), (ANSWER[:-1], True), ([IM_END], False), padding=3, pad=IM_END),
    "nothing-supervised": row((QUESTION, False), (ANSWER, False)),
    "everything-supervised": row((QUESTION, True), (ANSWER, True), padding=2),
    "template-supervised": row((QUESTION[:-11], False), (QUESTION[-11:], True), (ANSWER, True)),
    "padding-supervised": {
        **row((QUESTION, False), (ANSWER, True), padding=3),
        "labels": [-100] * len(QUESTION) + [*ANSWER, END, END, END],
    },
    "tool-result-supervised": row(
        (QUESTION, False), (TOOL[:6], False), (TOOL[6:16], True), (TOOL[16:], False), (ANSWER, True)
    ),
    "labels-shifted": SHIFTED,
    "labels-differ": {**GOOD[0], "labels": [-100] * len(QUESTION) + [7, 8, 9, 10, 11, IM_END]},
}


def lint(path: str, pad: str | None = "<|endoftext|>") -> Any:
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = pad
    return lint_dump(path, Findings(frozenset(RULES)), TokenText(tokenizer))


def test_correct_labels_have_no_findings(write: Callable[..., str]) -> None:
    report = lint(write("labels.jsonl", GOOD))
    assert (fired(report), report.rows) == ({}, {"labels": len(GOOD)})


@pytest.mark.parametrize("rule", FAULTS)
def test_planted_fault_is_found_once_and_nothing_else(rule: str, write: Callable[..., str]) -> None:
    pad = "<|im_end|>" if rule == "pad-masks-end" else "<|endoftext|>"
    assert fired(lint(write("labels.jsonl", [*GOOD, FAULTS[rule]]), pad)) == {rule: 1}


def test_end_token_in_no_row_is_found(write: Callable[..., str]) -> None:
    rows = [row((QUESTION, False), (ANSWER[:-1], True))] * 2
    assert fired(lint(write("labels.jsonl", rows))) == {"end-token-unsupervised": 2}


def test_line_break_trained_after_the_end_token_is_template(write: Callable[..., str]) -> None:
    report = lint(write("labels.jsonl", [*GOOD, row((QUESTION, False), ([*ANSWER, *b"\n"], True))]))
    assert fired(report) == {"template-supervised": 1}


def test_attention_mask_made_by_id_does_not_hide_the_end_token(write: Callable[..., str]) -> None:
    planted = row((QUESTION, False), (ANSWER[:-1], True), ([IM_END], False), padding=3, pad=IM_END)
    planted["attention_mask"] = [int(index != IM_END) for index in planted["input_ids"]]
    assert fired(lint(write("labels.jsonl", [*GOOD, planted]), "<|im_end|>")) == {"pad-masks-end": 1}


def test_padding_by_attention_mask_alone(write: Callable[..., str]) -> None:
    planted = row((QUESTION, False), (ANSWER, True), ([*b"???"], True))
    planted["attention_mask"] = [1] * (len(planted["input_ids"]) - 3) + [0] * 3
    assert fired(lint(write("labels.jsonl", [*GOOD, planted]))) == {"padding-supervised": 1}


def test_headers_without_special_tokens_are_found(write: Callable[..., str]) -> None:
    prompt, header, answer = [*b"### Instruction:\nWho?\n\n"], [*b"### Response:\n"], [*b"Me.", END]
    good, bad = row((prompt + header, False), (answer, True)), row((prompt, False), (header + answer, True))
    assert fired(lint(write("labels.jsonl", [good, bad]))) == {"template-supervised": 1}


def test_without_a_tokenizer_labels_are_still_compared(write: Callable[..., str]) -> None:
    path = write("labels.jsonl", [*GOOD, *FAULTS.values()])
    report = lint_dump(path, Findings(frozenset(RULES)), None)
    # padding cannot be told from text, so the row in which all but the padding is supervised has no finding
    assert fired(report) == {"labels-shifted": 1, "labels-differ": 1, "nothing-supervised": 1}
    assert report.findings.not_run.keys() == {
        "end-token-unsupervised",
        "pad-masks-end",
        "template-supervised",
        "tool-result-supervised",
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "rows.jsonl:1: not valid JSON"),
        ("[1]", "rows.jsonl:1: found a list"),
        ('{"input_ids": [1]}', "no field 'labels'"),
        ('{"input_ids": [1, 2], "labels": [1]}', "labels has 1 numbers, input_ids 2"),
        ('{"input_ids": [1.5], "labels": [1]}', "'input_ids' is a list; expected a list of whole numbers"),
        ('{"input_ids": [], "labels": []}', "expected a list of whole numbers, not empty"),
    ],
)
def test_line_that_is_no_row_is_refused(line: str, message: str, write: Callable[..., str]) -> None:
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        lint(write("rows.jsonl", f"{line}\n"))


def test_empty_dump_is_refused(write: Callable[..., str]) -> None:
    with pytest.raises(UserError, match="no rows"):
        lint(write("rows.jsonl", "\n"))


def test_dump_is_compared_with_what_the_trainer_makes_of_the_records(
    write: Callable[..., str], tokenizer_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = byte_tokenizer()
    convention = resolve_convention("trl:assistant_only", tokenizer, "chatml")
    rows, conversations = write("rows.jsonl", CLEAN), []
    for source in read_conversations("train", Sources({"train": [rows]}), RecordCounts()):
        made = expected_labels(convention, source)
        assert made is not None
        conversations.append(made)
    dump = [{"input_ids": ids + [END] * 4, "labels": labels + [-100] * 4} for ids, labels in reversed(conversations)]
    arguments = ["--as", "trl:assistant_only", "--tokenizer", tokenizer_folder, "--data.template", "chatml"]
    good = write("good.jsonl", dump)
    assert main(["lint", rows, "--labels", good, *arguments]) == 0, capsys.readouterr()
    assert "compared with trl:assistant_only" in capsys.readouterr().out
    # the last supervised token of the first row, and ids of no record
    place = max(index for index, label in enumerate(dump[0]["labels"]) if label >= 0)
    dump[0]["labels"][place] = -100
    dump[1] = GOOD[0]
    bad = write("bad.jsonl", dump)
    assert main(["lint", rows, "--labels", bad, *arguments]) == 1
    out = capsys.readouterr().out
    assert "error labels-not-as-claimed: 2 rows" in out
    assert f"bad.jsonl:1: {rows}:6: token {place} is not supervised; trl:assistant_only supervises it" in out
    assert "bad.jsonl:2: no record gives these ids" in out


def test_claim_without_records_is_refused(
    write: Callable[..., str], tokenizer_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    dump, rows = write("dump.jsonl", GOOD), write("rows.jsonl", CLEAN)
    tokenizer = ["--tokenizer", tokenizer_folder]
    for arguments, message in (
        (["--labels", dump, "--as", "trl:messages", *tokenizer], "needs the tokenizer and the records"),
        ([rows, "--as", "trl:messages", *tokenizer], "--as: only with --labels"),
        ([rows, "--labels", dump, "--as", "trl:message", *tokenizer], "--as trl:message: no such convention"),
    ):
        assert main(["lint", *arguments]) == 2
        assert message in capsys.readouterr().err
