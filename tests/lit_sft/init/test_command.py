"""`init` writes a config that trains, whatever the format of the records."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_modules.errors import UserError
from lit_sft.__main__ import main
from lit_sft.init import command, machine, survey, trial
from lit_sft.init.command import propose_config
from lit_sft.init.machine import Machine
from lit_sft.models.model_config import config_from
from lit_sft.settings.reading import read_settings
from tests.conftest import MODELS
from tests.documents import ROOT

NUM = 40
QUESTIONS = [(f"What is number {n}?", f"Number {n} is {n * n}.") for n in range(NUM)]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and a machine that is the same everywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_SFT_CACHE", str(tmp_path / "cache"))
    found = Machine("cpu", "a CPU", 8 * 10**9, "32-true", "for the test", 1e9)
    monkeypatch.setattr(machine, "look_around", lambda width, inner: found)
    monkeypatch.setattr(trial, "_SECONDS", 0.05)
    return tmp_path


@pytest.fixture
def model_folder(tmp_path: Path, tokenizer_folder: str) -> str:
    """A model with a tokenizer that has no chat template."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    config = config_from(MODELS["gpt2"])
    config.vocab_size = len(tokenizer)
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def lines(name: str, rows: list[dict[str, Any]]) -> str:
    Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return name


def alpaca() -> str:
    Path("rows.json").write_text(json.dumps([{"instruction": q, "input": "", "output": a} for q, a in QUESTIONS]))
    return "rows.json"


def table() -> str:
    with open("rows.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("question", "answer"), *QUESTIONS])
    return "rows.csv"


def tabs() -> str:
    with open("rows.tsv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t").writerows([("question", "answer"), *QUESTIONS])
    return "rows.tsv"


def columns() -> str:
    pyarrow.parquet.write_table(
        pyarrow.table({"prompt": [q for q, _ in QUESTIONS], "completion": [a for _, a in QUESTIONS]}), "rows.parquet"
    )
    return "rows.parquet"


def folder() -> str:
    Path("rows").mkdir()
    half = [{"prompt": q, "completion": a} for q, a in QUESTIONS]
    lines("rows/a.jsonl", half[:20])
    lines("rows/b.jsonl", half[20:])
    return "rows"


def messages() -> str:
    def turns(n: int) -> list[dict[str, str]]:
        pairs = (QUESTIONS[n], QUESTIONS[n - 1])
        return [
            {"role": role, "content": text}
            for pair in pairs
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]

    return lines("chats.jsonl", [{"messages": turns(n)} for n in range(NUM)])


def sharegpt() -> str:
    return lines(
        "chats.jsonl",
        [{"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]} for q, a in QUESTIONS],
    )


def firefly() -> str:
    return lines("chats.jsonl", [{"conversation": [{"human": q, "assistant": a}] * 2} for q, a in QUESTIONS])


def long_firefly() -> str:
    rounds = [{"human": f"第{n}个问题是什么？", "assistant": "因为刺猬住在树叶里。" * 30} for n in range(5)]
    chats = [[{"human": str(n), "assistant": "好。"}, *rounds] for n in range(22)]
    rows = [{"conversation_id": n, "category": "问答", "conversation": chat} for n, chat in enumerate(chats)]
    return lines("chats.jsonl", rows)


def ultrachat() -> str:
    return lines("chats.jsonl", [{"id": str(n), "data": [*pair]} for n, pair in enumerate(QUESTIONS)])


def out_of_order() -> str:
    rows = [["assistant", "user", "user", "assistant"] for _ in QUESTIONS]
    return lines(
        "chats.jsonl",
        [
            {"messages": [{"role": r, "content": f"{q} {i}"} for i, r in enumerate(row)]}
            for row, (q, _) in zip(rows, QUESTIONS, strict=True)
        ],
    )


def partly_invalid() -> str:
    rows = [{"instruction": q, "output": a} for q, a in QUESTIONS]
    return lines("rows.jsonl", [*rows, {"instruction": 7, "output": "seven"}, {"instruction": "?", "output": ["a"]}])


def texts() -> str:
    Path("texts.txt").write_text("\n".join(f"{q} {a} " * 20 for q, a in QUESTIONS), encoding="utf-8")
    return "texts.txt"


def long_lines() -> str:
    Path("texts.txt").write_text(
        "\n".join(f"The hedgehog number {n} sleeps. " * 300 for n in range(18)), encoding="utf-8"
    )
    return "texts.txt"


def documents() -> str:
    return lines("texts.jsonl", [{"body": f"{q} {a} " * 20} for q, a in QUESTIONS])


SHAPES: dict[str, tuple[Callable[[], str], dict[str, Any]]] = {
    "alpaca": (alpaca, {"mask": "output_only"}),
    "csv": (table, {"columns": {"instruction": "question", "output": "answer"}}),
    "tsv": (tabs, {"columns": {"instruction": "question", "output": "answer"}}),
    "parquet": (columns, {"mask": "output_only"}),
    "folder": (folder, {"mask": "output_only"}),
    "messages": (messages, {"mask": "firefly_multi_turn"}),
    "sharegpt": (sharegpt, {"mask": "output_only"}),
    "firefly": (firefly, {"mask": "firefly_multi_turn"}),
    "long firefly": (long_firefly, {"mask": "firefly_multi_turn", "over_long": "split", "max_length": 1024}),
    "ultrachat": (ultrachat, {"mask": "output_only"}),
    "out of order": (out_of_order, {"consecutive": "merge", "first_answer": "drop"}),
    "partly invalid": (partly_invalid, {"on_invalid": "drop"}),
    "txt": (texts, {"block_size": 256}),
    "long lines": (long_lines, {"block_size": 256}),
    "documents": (documents, {"columns": {"text": "body"}, "block_size": 256}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_config_has_what_the_records_need_and_trains(shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, expected = SHAPES[shape]
    assert main(["init", make()]) == 0
    said = capsys.readouterr().out
    assert said.endswith(
        "next    lit-sft preview --config config.yaml\nthen    lit-sft fit --config config.yaml\nthen    lit-sft chat\n"
    )
    data = yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8"))["data"]
    assert {name: data[name] for name in expected} == expected
    quick = ["--trainer.max_steps", "2", "--trainer.limit_val_batches", "1", "--trainer.enable_progress_bar", "false"]
    assert main(["fit", "--config", "config.yaml", *quick, "--trainer.accelerator", "cpu"]) == 0
    assert Path("runs/config/version_0/model/model.safetensors").is_file()


def test_longest_records_decide_the_limit_and_the_positions() -> None:
    lines("rows.jsonl", [{"prompt": "Say a lot.", "completion": f"{n} " * 300} for n in range(NUM)])
    text, said = propose_config("rows.jsonl", None)
    config = yaml.safe_load(text)
    longest = int(said[0].rpartition("longest ")[2].removesuffix(" tokens").replace(",", ""))
    assert 600 < longest <= config["data"]["max_length"] == config["model"]["backbone"]["config"]["n_positions"]
    assert config["data"]["max_length"] - longest < 64


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "parquet"])
def test_number_of_records_beyond_those_read_is_estimated_by_their_bytes(
    suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "_MOST_READ", 1000)
    monkeypatch.setattr(survey, "_MOST_MEASURED", 2049)
    # text that JSON escapes, characters of several bytes, and a field that is not read; one in five is invalid
    rows = [{"prompt": "\n" * 20 + f"第{n:05}", "completion": "" if n % 5 == 0 else "好" * 9} for n in range(10_000)]
    if suffix == "json":
        Path("rows.json").write_text(json.dumps(rows, ensure_ascii=False, indent=2), encoding="utf-8")
    elif suffix == "jsonl":
        lines("rows.jsonl", rows)
    elif suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), "rows.parquet")
    else:
        with open("rows.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("prompt", "completion"), *(row.values() for row in rows)])
    found = survey.survey(f"rows.{suffix}")
    assert found.is_estimate
    assert found.num_records == pytest.approx(8000, rel=0.05 if suffix == "json" else 0.005)


def test_a_single_record_is_trained_and_none_is_held_out() -> None:
    lines("rows.jsonl", [{"prompt": "What is this?", "completion": "A record."}])
    text, said = propose_config("rows.jsonl", None)
    assert said[0].startswith("data    1 question with an answer, ")
    assert "train: rows.jsonl # 1 record, " in text
    config = yaml.safe_load(text)
    assert (config["data"]["val_fraction"], config["data"]["test_fraction"]) == (0, 0)
    Path("config.yaml").write_text(text)
    quick = ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    assert main(["fit", "--config", "config.yaml", *quick]) == 0
    assert Path("runs/config/version_0/model/model.safetensors").is_file()


def test_model_brings_its_tokenizer_template_and_context(model_folder: str) -> None:
    text, said = propose_config(alpaca(), model_folder)
    config = yaml.safe_load(text)
    assert config["model"]["backbone"]["pretrained"] == model_folder
    assert config["model"]["backbone"]["tuning"] == "lora"
    assert said[1].endswith("lora, because 40 records are few for 0 M weights")
    assert config["data"]["template"] == "plain"


def test_preference_pairs_get_a_config_of_dpo_that_trains(
    model_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [{"prompt": q, "chosen": a, "rejected": "I do not know."} for q, a in QUESTIONS]
    assert main(["init", lines("pairs.jsonl", pairs), model_folder]) == 0
    assert "data    40 preference pairs, format preference; " in capsys.readouterr().out
    config = yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8"))
    assert config["model"]["objective"] == {"name": "dpo", "beta": 0.1}
    assert config["model"]["backbone"]["tuning"] == "lora"
    assert config["checkpoint"] == {"monitor": "val/preference_loss"}
    quick = ["--trainer.max_steps", "2", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    assert main(["fit", "--config", "config.yaml", *quick]) == 0
    assert Path("runs/config/version_0/model/adapter_model.safetensors").is_file()


def test_a_file_in_another_encoding_is_an_error_that_names_it() -> None:
    rows = "".join(f"{q},{a}\n" for q, a in QUESTIONS)
    Path("rows.csv").write_bytes(f"question,answer\n{rows}Où est le café ?,Ici.\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"rows.csv:42: not UTF-8 .*`iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW`"):
        propose_config("rows.csv", None)


def test_damaged_bytes_in_a_file_of_utf8_leave_out_one_record() -> None:
    rows = "".join(f"{q} ‘étage’,{a}\n" for q, a in QUESTIONS)
    Path("rows.csv").write_bytes(f"question,answer\n{rows}".encode() + b"caf\xe9,Ici.\n")
    text, found = propose_config("rows.csv", None)
    assert yaml.safe_load(text)["data"]["on_invalid"] == "drop"
    assert found[-1].startswith("invalid 1 record will be left out: rows.csv:42: not UTF-8")


def test_bundled_tokenizer_is_named_where_it_lies(place: Path) -> None:
    assert command._tokenizer() == str(ROOT / "examples/tokenizer")
    (place / "examples" / "tokenizer").mkdir(parents=True)
    assert command._tokenizer() == "examples/tokenizer"


def test_existing_config_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.yaml").write_text("mine")
    assert main(["init", alpaca()]) == 2
    assert "--output config.yaml: exists; name another file, or add `--overwrite`." in capsys.readouterr().err
    assert Path("config.yaml").read_text() == "mine"
    assert main(["init", "rows.json", "--output", "other.yaml"]) == 0
    assert main(["init", "rows.json", "--overwrite"]) == 0
    assert read_settings("config.yaml").config.data.train == "rows.json"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"a": "x", "b": "y"}, "no known format has the fields"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "teach a model that already answers.*docs/preferences.md"),
    ],
)
def test_records_that_cannot_be_read_are_an_error(fields: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        propose_config(lines("rows.jsonl", [fields] * 3), None)


@pytest.mark.parametrize(("data", "message"), [("none.csv", "none.csv: no such file"), ("empty.jsonl", "empty")])
def test_missing_and_empty_files_are_an_error(data: str, message: str) -> None:
    Path("empty.jsonl").write_text("")
    with pytest.raises(UserError, match=message):
        propose_config(data, None)


def test_second_data_file_in_place_of_a_model_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", alpaca(), "more.json"]) == 2
    assert (
        "more.json: expected a model after the data; put several data files into one folder." in capsys.readouterr().err
    )


def test_labels_that_are_not_ratings_are_named() -> None:
    rated = [
        {"prompt": question, "completion": answer, "label": n % 2} for n, (question, answer) in enumerate(QUESTIONS)
    ]
    _, said = propose_config(lines("rated.jsonl", rated), None)
    assert said[-1].endswith("not used: label (40 records); a label rates an answer only if it is true or false")
