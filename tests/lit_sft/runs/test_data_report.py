from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from data_modules.encoding.ledger import Ledger
from data_modules.rendering.templates import TemplateName, resolve_template
from data_modules.sft_data_module import SFTDataModule
from lit_sft.runs.data_report import SplitReport, data_remarks, print_ledger, template_warning
from tests.conftest import alpaca_rows
from tests.data_modules.rendering.test_templates import JINJA_CHATML

MakeData = Callable[..., SFTDataModule]

EXCHANGE = len("SuserLELSassistantLEL")
"""Template tokens of an exchange in ChatML, without its contents."""


def dialogue(num_exchanges: int, size: int = 10) -> dict[str, Any]:
    """A dialogue whose exchanges have `size` tokens each, plus the template's."""
    half = size // 2
    return {"conversation": [{"human": "h" * half, "assistant": "a" * (size - half)} for _ in range(num_exchanges)]}


def printed(data: SFTDataModule) -> str:
    console = Console(file=io.StringIO(), width=300)
    print_ledger(console, data)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def remarks(data: SFTDataModule) -> str:
    return "\n".join(data_remarks(data))


def test_truncated_answers_are_reported_with_the_limits_that_would_keep_them(make_data: MakeData) -> None:
    one = EXCHANGE + 10
    rows = [dialogue(n) for n in (1, 2, 2, 2, 3)] + [dialogue(4)]
    data = make_data(rows, mask="firefly_multi_turn", max_length=2 * one, context_length=10 * one)
    assert data_remarks(data) == [
        f"train: 3 of 14 answers were cut or lost, because conversations are longer than --data.max_length {2 * one}.",
        f"  Lengths before truncation: median {2 * one}, 95th percentile {4 * one}, 99th {4 * one}, maximum {4 * one} "
        "tokens.",
        f"  --data.max_length {4 * one} keeps all of the conversations whole. `--data.over_long split` cuts between "
        "turns instead and loses only answers that are too long on their own.",
    ]


def test_share_kept_by_a_limit_is_the_share_of_records_within_it() -> None:
    ledger = Ledger()
    for length in range(1, 201):
        ledger.count_length(length, 100, is_text=False)
    found = ledger.to_dict()["length_before"]["conversations"]
    assert found == {"count": 200, "over_long": 100, "p50": 100, "p95": 190, "p99": 198, "max": 200}


@pytest.mark.parametrize(
    ("context", "advice"),
    [
        (None, "--data.max_length 190 keeps 95%, 198 keeps 99% of the conversations whole."),
        (500, "--data.max_length 190 keeps 95%, 198 keeps 99% of the conversations whole."),
        (
            195,
            "--data.max_length 190 keeps 95% of the conversations whole. Keeping 99% whole takes 198 tokens, but the "
            "model's context length is 195.",
        ),
        (150, "Keeping 95% whole takes 190 tokens, but the model's context length is 150."),
    ],
)
def test_advice_does_not_exceed_the_context_length(context: int | None, advice: str) -> None:
    ledger = Ledger()
    for length in range(1, 201):
        ledger.count_length(length, 100, is_text=False)
    entry = ledger.to_dict()
    entry["answers"]["output_only"] = {"read": 200, "cut": 90, "lost": 1}
    lines = SplitReport("train", entry, "output_only", 100, "truncate", context).remarks()
    assert lines[0].startswith("train: 91 of 200 answers were cut or lost")
    assert lines[2] == f"  {advice}"


def test_lost_turns_are_reported_if_no_supervised_answer_is_lost(make_data: MakeData) -> None:
    data = make_data([dialogue(3), dialogue(1)], mask="output_only", max_length=2 * (EXCHANGE + 10))
    assert data_remarks(data)[0] == (
        "train: 1 of 2 conversations lost earlier turns or part of their prompt, because it is longer than "
        f"--data.max_length {2 * (EXCHANGE + 10)}; no answer supervised by the mask output_only was cut."
    )


def test_dropped_conversations_are_reported(make_data: MakeData) -> None:
    data = make_data([dialogue(3), dialogue(1)], mask="firefly_multi_turn", max_length=60, over_long="drop")
    said = remarks(data)
    assert "train: 1 of 2 conversations was dropped with 3 of 4 answers, because it is longer than" in said
    assert "Lengths of all conversations: median" in said
    assert "warning" not in said


def test_nothing_is_reported_if_nothing_is_lost(make_data: MakeData) -> None:
    assert data_remarks(make_data(alpaca_rows(9))) == []
    # every answer is kept, in another example
    assert data_remarks(make_data([dialogue(3)] * 3 + [dialogue(8)], max_length=3 * 36, over_long="split")) == []


@pytest.mark.parametrize(("over_long", "ending"), [("truncate", "keeps only its beginning"), ("drop", "is dropped")])
def test_discarded_text_is_reported_as_a_percentage(make_data: MakeData, over_long: str, ending: str) -> None:
    rows = [{"text": "t" * 399}, {"text": "u" * 49}]
    data = make_data(rows, mask="whole_sequence", max_length=50, over_long=over_long)
    lost = 350 if over_long == "truncate" else 400
    assert data_remarks(data) == [
        f"train: {lost * 100 // 450}% of the text was discarded ({lost} of 450 tokens), because 1 of 2 documents is "
        f"longer than --data.max_length 50 and {ending}. `--data.over_long split` cuts them into blocks instead and "
        "keeps all of it."
    ]
    assert data_remarks(make_data(rows, mask="whole_sequence", max_length=50, over_long="split")) == []


@pytest.mark.parametrize(("mask", "is_warned"), [("firefly_multi_turn", True), ("output_only", False)])
def test_mask_for_several_answers_with_one_left_is_a_warning(make_data: MakeData, mask: str, is_warned: bool) -> None:
    for over_long in ("truncate", "split"):
        data = make_data([dialogue(3)] * 20 + [dialogue(1)], mask=mask, max_length=50, over_long=over_long)
        warning = (
            "warning: 20 of 20 conversations with several answers are left with one answer per example, so the mask "
            "firefly_multi_turn trains them as output_only would"
        )
        assert (warning in remarks(data)) == is_warned
    # some still have several answers, or none ever had
    for rows, limit in (([dialogue(3)] * 3 + [dialogue(9)] * 5, 120), ([dialogue(1, 90)] * 4, 60)):
        assert "warning" not in remarks(make_data(rows, mask=mask, max_length=limit))


def test_advice_is_given_once_and_speaks_of_samples(make_data: MakeData) -> None:
    rows = [dialogue(4) | {"id": n} for n in range(40)]
    for n, row in enumerate(rows):
        row["conversation"][0]["human"] = f"{n:05}"
    data = make_data(rows, samples="answer", max_length=70, val_fraction=0.3)
    said = remarks(data)
    assert said.count("Lengths before truncation") == 1
    assert "samples lost earlier turns" in said
    assert "\nval: " in said


def test_shortened_prompts_are_reported(tokenizer: PreTrainedTokenizerFast, write: Callable[..., str]) -> None:
    prompts = write("p.jsonl", [{"prompt": "p" * 90}, {"prompt": "q"}])
    data = SFTDataModule(predict=prompts, tokenizer=tokenizer, template="chatml", context_length=100, answer_length=40)
    data.setup("predict")
    assert data_remarks(data) == ["predict: 1 of 2 prompts was shortened to 60 tokens, to leave room for the answer."]


def test_unknown_text_is_reported_with_its_first_location() -> None:
    ledger = Ledger()
    ledger.count_length(9, 10, is_text=False)
    ledger.count_unknown_text("rows.jsonl:1: '☃'")
    (warning,) = SplitReport("train", ledger.to_dict(), "output_only", 10, "truncate").remarks()
    assert warning.startswith("warning: train: 1 of 1 records contains text that the tokenizer cannot represent")
    assert "(first: rows.jsonl:1: '☃')" in warning


def test_ledger_of_an_earlier_version_is_reported(make_data: MakeData) -> None:
    data = make_data([dialogue(3)], max_length=50)
    for name in ("answers", "dialogues", "length_before", "unknown_text"):
        del data.ledgers["train"][name]
    assert data_remarks(data) == []


def test_remarks_follow_the_table_and_contain_no_control_characters(make_data: MakeData) -> None:
    data = make_data([dialogue(3)], max_length=50)
    data.ledgers["train"]["unknown_text"] = {"count": 1, "first": ["x\x1b[31m: [bold]y"]}
    file = io.StringIO()
    print_ledger(Console(file=file, width=60), data)
    table, _, said = file.getvalue().partition("train: 1 of 1 conversations lost")
    assert "records read" in table
    assert "Lengths before truncation" in said
    assert "␛[31m: [bold]y" in said


def test_printed_ledger_names_skipped_files_and_json_lines_in_txt_files(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in alpaca_rows(9)))
    (folder / "a\x1b.xlsx").write_text("")
    (folder / "b.txt").write_text('{"text": "a JSON line"}\n')
    data = SFTDataModule(
        str(folder), tokenizer=tokenizer, template="plain", mask="whole_sequence", encoding_processes=1
    )
    data.setup("fit")
    file = io.StringIO()
    print_ledger(Console(file=file, width=10_000), data)
    assert file.getvalue().count("skipped") == 1
    assert f"train: {folder}: skipped a␛.xlsx (hidden, or not .json, " in file.getvalue()
    assert f"train: {folder}: b.txt: the first line is a JSON object" in file.getvalue()


def chat_model(tokenizer: PreTrainedTokenizerFast, eos: str = "<|im_end|>") -> PreTrainedTokenizerFast:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = JINJA_CHATML.replace(
        "{% for", "{% if messages[0]['role'] != 'system' %}S{% endif %}{% for", 1
    )
    tokenizer.eos_token = eos
    return tokenizer


def warning(name: TemplateName, tokenizer: Any) -> str | None:
    return template_warning(name, resolve_template(name, tokenizer), tokenizer)


def test_chat_model_with_another_template_is_a_warning(tokenizer: PreTrainedTokenizerFast) -> None:
    model = chat_model(tokenizer)
    assert warning("alpaca", model) == (
        "this is a chat model with its own chat template, and --data.template alpaca formats conversations "
        "differently, so the model must relearn how conversations are formatted. Use --data.template auto to train "
        "with its own."
    )
    assert warning("plain", model)
    assert warning("auto", model) is None
    assert warning("tokenizer", model) is None
    assert warning("chatml", model) is None  # differs only in a default system prompt


def test_base_model_with_a_chat_template_is_not_a_chat_model(tokenizer: PreTrainedTokenizerFast) -> None:
    assert warning("alpaca", chat_model(tokenizer, eos="<|endoftext|>")) is None
    assert warning("plain", tokenizer) is None


def test_chat_model_is_recognised_by_its_generation_config(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    chat_model(tokenizer, eos="<|endoftext|>").save_pretrained(tmp_path)
    model = AutoTokenizer.from_pretrained(tmp_path)
    assert warning("alpaca", model) is None
    GenerationConfig(eos_token_id=[256, 258]).save_pretrained(tmp_path)
    said = warning("alpaca", model)
    assert said is not None
    assert "ends answers with '<|endoftext|>' instead of '<|im_end|>'" in said


def test_template_unusable_for_training_is_not_recommended(tokenizer: PreTrainedTokenizerFast) -> None:
    model = chat_model(tokenizer)
    model.chat_template = "{% for m in messages %}{{ m['content'] | upper }}<|im_end|>{% endfor %}"
    assert warning("alpaca", model) is None


def test_template_warning_is_the_last_remark(make_data: MakeData, tokenizer: PreTrainedTokenizerFast) -> None:
    data = make_data(alpaca_rows(4), tokenizer=chat_model(tokenizer), template="alpaca")
    (remark,) = data_remarks(data)
    assert remark.startswith("warning: this is a chat model")


def test_fields_that_nothing_reads_are_printed_once_per_file(make_data: MakeData) -> None:
    rows = [{**row, "source": "web", "\x1b[31mtopic": "x"} for row in alpaca_rows(3)]
    text = printed(make_data(rows))
    line = r"rows\.jsonl: fields not used: '\\x1b\[31mtopic' \(3 records\), source \(3\)"
    assert len(re.findall(line, text)) == 1
    assert "\x1b" not in text
    assert "fields not used" not in printed(make_data(alpaca_rows(3)))


def test_dropped_and_joined_turns_are_reported(make_data: MakeData) -> None:
    said = [{"role": role, "content": "x"} for role in ("assistant", "user", "user", "assistant")]
    data = make_data([{"messages": said}] * 3, consecutive="merge", first_answer="drop")
    assert data_remarks(data) == ["train: 3 messages joined with the one before, 3 answers at the start dropped."]
    assert data.ledgers["train"]["changed_turns"] == {
        "messages joined with the one before": 3,
        "answers at the start dropped": 3,
    }


@pytest.mark.parametrize(("mask", "is_reported"), [("output_only", True), ("firefly_multi_turn", False)])
def test_examples_that_a_weight_leaves_without_supervision_are_reported(
    make_data: MakeData, mask: str, is_reported: bool
) -> None:
    said = [{"role": role, "content": "x"} for role in ("user", "assistant", "user", "assistant")]
    rows = [{"messages": said}, {"messages": [*said[:3], {**said[3], "weight": 0}]}]
    found = remarks(make_data(rows, mask=mask))
    assert ("train: 1 of 2 examples end with an answer of weight 0, so the mask output_only" in found) == is_reported


def test_ledger_can_be_written_as_json(make_data: MakeData) -> None:
    ledger = make_data([dialogue(3)], max_length=50).ledgers["train"]
    assert json.loads(json.dumps(ledger)) == ledger
    assert ledger["answers"]["firefly_multi_turn"] == {"read": 3, "cut": 0, "lost": 2}
    assert ledger["answers"]["output_only"] == {"read": 1, "cut": 0, "lost": 0}
    assert ledger["dialogues"] == {"read": 1, "kept": 0}
