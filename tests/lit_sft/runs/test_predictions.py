from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import PreTrainedTokenizerFast

from data_modules.encoding.encoder import Encoder
from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.rendering.templates import resolve_template
from lit_sft.__main__ import main
from lit_sft.runs.lock import lock_run, lock_test
from lit_sft.runs.predictions import PredictionWriter, without_training_data
from lit_sft.runs.test_result import TestFiles, _make_room
from lit_sft.settings.reading import read_settings
from tests.conftest import MODELS, alpaca_rows

Write = Callable[..., str]
LINES = ["How many?", "Say \x1b[31mred.", "你好吗？"]


def run(*arguments: str) -> None:
    assert main(list(arguments)) == 0


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def fit(write: Write, tokenizer_folder: str, tmp_path: Path) -> Callable[..., Path]:
    """Train on rows for one step; returns the run folder."""

    def _fit(train: str, *options: str) -> Path:
        config = {
            "model": {
                "backbone": {"config": MODELS["gpt2"], "tokenizer": tokenizer_folder},
                "generation": {"max_new_tokens": 3},
            },
            "data": {"train": train, "val_fraction": 0, "test_fraction": 0.2, "template": "chatml"},
            "trainer": {"max_steps": 1, "accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 1},
            "run": {"root": str(tmp_path / "runs"), "name": "tiny"},
        }
        run("fit", "--config", write("tiny.yaml", yaml.safe_dump(config)), *options)
        return tmp_path / "runs" / "tiny" / "version_0"

    return _fit


def test_lines_of_a_text_file_are_questions_and_no_file_is_overwritten(
    fit: Callable[..., Path], write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = write("rows.jsonl", alpaca_rows(24))
    folder = fit(train, "--data.format", "alpaca")
    prompts = write("prompts.txt", "\n".join(LINES))
    Path(train).unlink()  # prompts are answered without the data that the run was trained on
    capsys.readouterr()
    run("predict", str(folder), "--data.predict", prompts)
    said = capsys.readouterr().out
    rows = rows_of(folder / "predictions.jsonl")
    assert [row["question"] for row in rows] == LINES
    assert [row["prompt"] for row in rows] == [
        f"<|im_start|>user\n{line}<|im_end|>\n<|im_start|>assistant\n" for line in LINES
    ]
    assert rows[0].keys() == {"origin", "question", "prompt", "answer", "ended", "num_tokens", "reference"}
    assert "\x1b" not in said
    assert f"{prompts}:2\n  prompt  Say ␛[31mred.\n  answer  " in said
    assert "3 answers, 3 shown" in said
    assert "not ended by the model: cut at 3 tokens (`--model.generation.max_new_tokens`)" in said
    assert said.splitlines()[-1] == f"written {folder / 'predictions.jsonl'}"

    run("predict", str(folder), "--data.predict", write("other.txt", "Another?"))
    assert [row["question"] for row in rows_of(folder / "predictions_1.jsonl")] == ["Another?"]
    assert rows_of(folder / "predictions.jsonl") == rows

    named = tmp_path / "new" / "answers.jsonl"
    run("predict", str(folder), "--data.predict", prompts, "--output", str(named))
    assert rows_of(named) == rows
    assert main(["predict", str(folder), "--data.predict", prompts, "--output", str(named)]) == 2
    assert f"--output {named}: exists already; name another file, or remove it." in capsys.readouterr().err
    assert rows_of(named) == rows
    assert not list(tmp_path.rglob("*.partial"))


def test_a_run_on_plain_text_continues_lines(fit: Callable[..., Path], write: Write) -> None:
    train = write("train.txt", "\n".join(f"This is sentence number {n}." for n in range(24)))
    folder = fit(train, "--data.mask", "whole_sequence")
    shutil.move(train, f"{train}.gone")
    run("predict", str(folder), "--data.predict", write("prompts.txt", "This is"))
    (row,) = rows_of(folder / "predictions.jsonl")
    assert (row["question"], row["prompt"]) == ("This is", "This is")  # not ended, not a user's message
    run("predict", str(folder), "--data.predict", write("p.txt", "This is"), "--data.text_prompts", "question")
    (row,) = rows_of(folder / "predictions_1.jsonl")
    assert row["prompt"] == "<|im_start|>user\nThis is<|im_end|>\n<|im_start|>assistant\n"


def test_truncated_prompts_are_reported(
    fit: Callable[..., Path], write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fit(write("rows.jsonl", alpaca_rows(24)), "--data.max_length", "64")
    run("predict", str(folder), "--data.predict", write("prompts.txt", f"{'long ' * 40}\nshort"))
    assert "1 prompt was longer than 64 tokens and cut: raise `--data.max_length`" in capsys.readouterr().out


def test_prompts_that_were_dropped_are_counted_with_the_reason(
    fit: Callable[..., Path], write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fit(write("rows.jsonl", alpaca_rows(24)))
    prompts = write("prompts.jsonl", [{"instruction": "Hi"}, {"instruction": None}, {"instruction": " "}])
    capsys.readouterr()
    run("predict", str(folder), "--data.predict", prompts, "--data.on_invalid", "drop")
    said = capsys.readouterr().out
    assert "predict: 2 of 3 records were dropped as invalid: 1 like " in said
    assert "prompts.jsonl:2: field 'instruction' is null; expected a string | 1 like " in said
    assert "on_invalid" not in said
    assert len(rows_of(folder / "predictions.jsonl")) == 1
    asked = write("asked.txt", "Hi")
    assert main(["predict", str(folder), "--data.predict", asked, "--model.generation.max_new_tokens", "511"]) == 2
    error = capsys.readouterr().err
    assert "--model.generation.max_new_tokens 511 leaves 1 of the model's 512 tokens for a prompt" in error


def test_a_failed_prediction_leaves_no_file(
    fit: Callable[..., Path], write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fit(write("rows.jsonl", alpaca_rows(24)))

    def fails(*_: Any, **__: Any) -> None:
        raise UserError("no memory")

    monkeypatch.setattr("lit_sft.training.module.generate", fails)
    assert main(["predict", str(folder), "--data.predict", write("prompts.txt", "Hi")]) == 2
    assert not list(folder.glob("predictions*"))


ROW = {"answer": "yes", "ended": True}


def start(writer: PredictionWriter) -> PredictionWriter:
    writer.on_predict_start(None, None)
    writer.write_on_batch_end(None, None, [ROW])
    return writer


def test_leftovers_of_a_killed_prediction_do_not_block_the_next(tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    killed, writer = (start(PredictionWriter(tmp_path, output)) for _ in range(2))
    writer.on_predict_end(None, None)
    assert rows_of(output) == [ROW]
    killed.on_exception(None, None, KeyboardInterrupt())  # closes its file, which only this test needs


def test_a_file_made_while_answers_are_written_is_not_overwritten(tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    first, second = (start(PredictionWriter(tmp_path, output)) for _ in range(2))
    first.on_predict_end(None, None)
    output.write_text("mine")
    with pytest.raises(
        ValueError, match=r"created by another process in the meantime; the answers of this one are in "
    ) as told:
        second.on_predict_end(None, None)
    second.on_exception(None, None, told.value)
    assert output.read_text() == "mine"
    assert rows_of(Path(str(told.value).rpartition(" ")[2].removesuffix("."))) == [ROW]
    numbered = [start(PredictionWriter(tmp_path)) for _ in range(3)]
    for writer in numbered:
        writer.on_predict_end(None, None)
    assert [writer.path.name for writer in numbered] == [f"predictions{n}.jsonl" for n in ("", "_1", "_2")]


@pytest.mark.parametrize("bos", [[], [257]])
def test_end_of_a_long_text_is_kept_after_the_bos_token(tokenizer: PreTrainedTokenizerFast, bos: list[int]) -> None:
    encoder = Encoder(tokenizer, resolve_template("chatml", tokenizer), max_length=4, continues=True)
    encoder.__dict__["_document_start"] = bos  # as if the tokenizer had one
    texts = [Conversation((Message(Role.TEXT, text),), "here") for text in ("abcdefghij", "kl")]
    (long,), (short,) = map(encoder.encode, texts)
    assert long.prompt_ids() == [*bos, *b"abcdefghij"[-4 + len(bos) :]]
    assert short.prompt_ids() == [*bos, *b"kl"]


def test_test_answers_hold_the_question_and_an_earlier_result_that_differs_is_kept(
    fit: Callable[..., Path], write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fit(write("rows.jsonl", alpaca_rows(24)))
    run("test", str(folder))
    first = (folder / "result.json").read_bytes()
    answers = rows_of(folder / "test_answers.jsonl")
    assert all(row["question"].startswith("Count to ") for row in answers)
    assert all(row["prompt"].endswith("<|im_start|>assistant\n") for row in answers)
    run("test", str(folder))  # the same again
    assert (folder / "result.json").read_bytes() == first
    assert not list(folder.glob("*_earlier_*"))
    assert "kept" not in capsys.readouterr().out
    run("test", str(folder), "--data.test", write("other.jsonl", alpaca_rows(30)[24:]))
    assert f"kept    {folder / 'result_earlier_1.json'}: an earlier result" in capsys.readouterr().out
    kept = json.loads((folder / "result_earlier_1.json").read_text())
    assert kept["files"] == ["test_records_earlier_1.jsonl", "test_answers_earlier_1.jsonl"]
    assert {**kept, "files": 0} == {**json.loads(first), "files": 0}
    assert rows_of(folder / "test_answers_earlier_1.jsonl") == answers
    assert len(rows_of(folder / "test_answers.jsonl")) == 6
    run("test", str(folder))  # and back
    assert rows_of(folder / "test_answers.jsonl") == answers
    assert (folder / "result_earlier_2.json").is_file()
    held = lock_test(folder / "result.json")
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    capsys.readouterr()
    assert main(["test", str(folder)]) == 2
    said = capsys.readouterr().err
    assert f"{folder / 'result.json'}: in use by process {os.getpid()} on " in said
    assert before == {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    held.release()
    with lock_run(folder):  # it may be tested while it trains
        run("test", str(folder))
    assert not list(folder.glob("*.lock"))


@pytest.mark.parametrize("metrics", [None, [], "none", {}, {"test/loss": None}, {"test/loss": "1"}], ids=str)
@pytest.mark.parametrize("loss", [1.5, math.nan])
def test_damaged_result_is_renamed(tmp_path: Path, metrics: Any, loss: float) -> None:
    files, answers = TestFiles(tmp_path), tmp_path / "new"
    files.answers.write_text("")
    answers.write_text("")
    files.result.write_text(json.dumps({"metrics": metrics, "test_fingerprint": "f"}))
    result = {"metrics": {"test/loss": loss}, "test_fingerprint": "f"}
    assert _make_room(files, result, answers) == tmp_path / "result_earlier_1.json"
    assert not files.result.exists()


def test_a_finite_loss_is_not_replaced_by_one_that_is_not(tmp_path: Path) -> None:
    files, answers = TestFiles(tmp_path), tmp_path / "new"
    files.answers.write_text("")
    answers.write_text("")
    files.result.write_text(json.dumps({"metrics": {"test/loss": 1.5}, "test_fingerprint": "f"}))
    result = {"metrics": {"test/loss": math.nan}, "test_fingerprint": "f"}
    assert _make_room(files, result, answers) == tmp_path / "result_earlier_1.json"


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (3, "ledger.json: train: found the number 3; expected an object"),
        ({"tokens": {"read": {"text": 1}}}, "ledger.json: train: tokens: read: no field 'user'"),
        ({"tokens": {"read": {"text": "x", "user": 0}}}, "read: text is 'x'; expected a whole number"),
    ],
)
def test_a_damaged_ledger_is_refused_by_name(tmp_path: Path, train: Any, message: str) -> None:
    (tmp_path / "ledger.json").write_text(json.dumps({"train": train}))
    settings = read_settings(Path(__file__).parents[3] / "configs" / "quickstart.yaml", {"data.predict": "ask.jsonl"})
    with pytest.raises(UserError, match=message):
        without_training_data(settings, tmp_path)
