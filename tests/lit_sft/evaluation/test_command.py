"""`evaluate` as a user runs it: on folders, adapters and runs, with models, sets and rows that fail."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lit_sft.__main__ import main
from lit_sft.evaluation.command import _models
from lit_sft.evaluation.contamination import contaminated
from lit_sft.models.adapters import LoraSettings
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.runs.opening import open_model
from lit_sft.votes import Voter, read_votes
from tests.conftest import MODELS, alpaca_rows, byte_tokenizer

Write = Callable[..., str]

ITEM = {"question": "Who <b>sings</b>?", "options": ["a bird", "a stone"], "answer": "a bird"}


@pytest.fixture
def model(tmp_path: Path) -> Callable[[int], str]:
    """A folder with a small GPT-2 with weights determined by a seed."""

    def _model(seed: int) -> str:
        folder = tmp_path / f"model{seed}"
        torch.manual_seed(seed)
        build_backbone(BackboneSettings(config=MODELS["gpt2"]), byte_tokenizer()).save_pretrained(folder)  # type: ignore[operator]
        byte_tokenizer().save_pretrained(folder)
        return str(folder)

    return _model


@pytest.fixture
def suite(write: Write) -> dict[str, Any]:
    rows = [*alpaca_rows(5), {"instruction": "x", "output": ""}]
    items = [{"id": f"i{n}", "subject": f"part {n % 2}", **ITEM} for n in range(6)]
    return {
        "template": "chatml",
        "text": {"prose": {"data": write("prose.jsonl", [{"text": "The mill stands by the river."}]), "window": 16}},
        "conversations": {"rows": {"data": write("rows.jsonl", rows)}},
        "choices": {"items": {"data": write("items.jsonl", items), "forms": ["cloze"], "rules": ["sum"]}},
        "answers": {"asked": {"data": write("asked.jsonl", alpaca_rows(4)), "max_new_tokens": 4}},
        "prompts": {"fixed": {"prompts": ["<script>alert(1)</script>"], "max_new_tokens": 4}},
        "published": ["S1", "minigpt"],
    }


def evaluate(tmp_path: Path, write: Write, suite: dict[str, Any], *models: str) -> int:
    path = write("suite.yaml", json.dumps(suite))
    try:
        return main(["evaluate", "--suite", path, "--output", str(tmp_path / "out"), "--models", *models])
    except SystemExit as stop:
        return int(stop.code or 0)


def table(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "out" / "report.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_two_models_are_scored_compared_and_kept(
    tmp_path: Path, write: Write, suite: dict[str, Any], model: Callable[[int], str], capsys: pytest.CaptureFixture[str]
) -> None:
    models = f"base={model(0)}", f"tuned={model(1)}"
    assert evaluate(tmp_path, write, suite, *models) == 0
    out = tmp_path / "out"
    files = {str(file.relative_to(out)) for file in out.rglob("*.jsonl")}
    assert files == {
        f"items/{name}/{s}.jsonl" for name in ("base", "tuned") for s in ("prose", "rows", "items", "asked", "fixed")
    }
    changes = {(row["set"], row["part"], row["figure"]) for row in table(tmp_path) if row["what"] == "change"}
    assert {
        ("items", "", "accuracy/cloze/sum"),
        ("items", "part 1", "accuracy/cloze/sum"),
        ("prose", "", "bits_per_byte"),
    } <= changes
    page = (out / "report.html").read_text()
    assert "<script>" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;alert(1)" in page
    for said in (
        "Every change from “base”",
        "prose: every metric",
        "fixed: side by side",
        "Winogrande",
        "MiniGPT",
        "rows.jsonl:6",
    ):
        assert said in page
    assert json.loads((out / "results.json").read_text())["figures"]["tuned"]["items"]
    assert (out / "changes.png").stat().st_size > 5000

    # finished sets are not scored again, changed ones are
    stamps = {file: file.stat().st_mtime_ns for file in out.rglob("*.jsonl")}
    write("items.jsonl", [{"id": "other", **ITEM}])
    assert evaluate(tmp_path, write, suite, *models) == 0
    changed = {str(file.relative_to(out)) for file in stamps if file.stat().st_mtime_ns != stamps[file]}
    assert changed == {"items/base/items.jsonl", "items/tuned/items.jsonl"}
    capsys.readouterr()


def test_failing_model_and_set_do_not_stop_the_others(
    tmp_path: Path, write: Write, suite: dict[str, Any], model: Callable[[int], str], capsys: pytest.CaptureFixture[str]
) -> None:
    suite["text"]["absent"] = {"data": str(tmp_path / "absent.txt")}
    suite["harness"] = {"no task": {"task": "nothing_of_this_name", "include": str(tmp_path)}}
    cut = Path(model(2)) / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:5000])
    bare = Path(model(3))
    for file in bare.glob("tokenizer*"):
        file.unlink()
    models = (
        f"lost={tmp_path / 'nowhere'}",
        f"base={model(0)}",
        f"cut={cut.parent}",
        f"bare={bare}",
        f"tuned={model(1)}",
    )
    models = models[1], models[0], *models[2:]
    assert evaluate(tmp_path, write, suite, *models) == 1
    said = capsys.readouterr().err
    assert f"lost: {tmp_path / 'nowhere'}: no such folder, and not a model name on the hub" in said
    assert f"cut: {cut.parent}: model.safetensors cannot be read" in said
    assert "bare: " in said
    assert "base, absent: " in said
    text = (tmp_path / "out" / "report.md").read_text()
    assert "nothing&#95;of&#95;this&#95;name" in text
    assert {row["set"] for row in table(tmp_path) if row["what"] == "change"} == {"prose", "rows", "items", "asked"}


def test_a_run_and_an_adapter_are_scored_as_their_merged_model(
    tmp_path: Path, write: Write, suite: dict[str, Any], model: Callable[[int], str], capsys: pytest.CaptureFixture[str]
) -> None:
    base = model(0)
    lora = LoraSettings(rank=2)
    torch.manual_seed(5)
    adapted: Any = build_backbone(BackboneSettings(pretrained=base, tuning="lora", lora=lora), byte_tokenizer())
    adapted.save_pretrained(tmp_path / "adapter")
    weights = {k: torch.randn_like(v) for k, v in load_file(tmp_path / "adapter" / "adapter_model.safetensors").items()}
    save_file(weights, tmp_path / "adapter" / "adapter_model.safetensors", {"format": "pt"})
    model = open_model("adapter", str(tmp_path / "adapter"), template="chatml")
    merged: Any = open_model("again", str(tmp_path / "adapter"), template="chatml").backbone
    merged.merge_and_unload().save_pretrained(tmp_path / "merged")
    byte_tokenizer().save_pretrained(tmp_path / "merged")
    whole = open_model("merged", str(tmp_path / "merged"), template="chatml")
    ids = list(b"The mill stands by the river.")
    torch.testing.assert_close(
        torch.tensor(model.nats([ids])[0]), torch.tensor(whole.nats([ids])[0]), rtol=1e-4, atol=1e-4
    )
    assert model.digest() != open_model("base", base, template="chatml").digest()
    save_file(dict(list(weights.items())[:2]), tmp_path / "cut.safetensors", {"format": "pt"})
    partial = tmp_path / "partial"
    shutil.copytree(tmp_path / "adapter", partial)
    shutil.move(tmp_path / "cut.safetensors", partial / "adapter_model.safetensors")
    with pytest.raises(
        ValueError, match=r"this adapter does not fit the model \(14 of its weights are missing: base_model"
    ):
        open_model("partial", str(partial), template="chatml")
    load = "from lit_sft.runs.opening import open_model"
    code = f"{load}; print(open_model('', {str(tmp_path / 'adapter')!r}).digest())"
    said = [
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": n}
        )
        for n in ("1", "2")
    ]
    assert said[0].stdout == said[1].stdout  # or nothing would be kept from one run to the next
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 16', '"lora_alpha": 32'))
    assert model.digest() != open_model("stronger", str(tmp_path / "adapter"), template="chatml").digest()

    fit = [
        "fit", "--config", write("run.yaml", json.dumps({"model": {"backbone": {"pretrained": base}}})),
        "--model.backbone.tuning", "lora", "--data.train", write("train.jsonl", alpaca_rows(20)),
        "--data.template", "plain", "--trainer.max_steps", "2",
        "--trainer.accelerator", "cpu", "--run.root", str(tmp_path / "runs"), "--data.val_fraction", "0.2",
        "--model.optimizer.lr", "0.1", "--trainer.enable_progress_bar", "false",
    ]  # fmt: skip
    assert main(fit) == 0
    run = tmp_path / "runs" / "run" / "version_0"
    of_run, exported = open_model("run", str(run)), open_model("exported", str(run / "model"))
    checkpoint = open_model("checkpoint", str(run / "checkpoints" / "best.ckpt"))
    nats = torch.tensor(of_run.nats([ids])[0])
    for other in (exported, checkpoint):
        torch.testing.assert_close(nats, torch.tensor(other.nats([ids])[0]))
        assert other.encoder.template.name == of_run.encoder.template.name == "plain"
    assert not torch.allclose(nats, torch.tensor(open_model("base", base).nats([ids])[0]))
    capsys.readouterr()

    # a run's own training files are searched by default
    asked = {"asked": {"data": str(tmp_path / "train.jsonl"), "rows": 10, "max_new_tokens": 2}}
    assert evaluate(tmp_path, write, {"answers": asked}, f"base={base}", f"tuned={run}") == 0
    said = capsys.readouterr().out
    assert f"tuned: trained on {tmp_path / 'train.jsonl'}\n" in said
    assert re.search(r"The training records of “tuned” contain \d+ of 10 items of “asked”\.", said)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| base |  |  |  | unknown: not a run folder |" in text
    assert "| tuned | asked | " in text


def test_a_local_judge_and_its_win_rate(
    tmp_path: Path, write: Write, suite: dict[str, Any], model: Callable[[int], str], capsys: pytest.CaptureFixture[str]
) -> None:
    suite["judge"] = {"sets": ["asked", "fixed"], "model": model(2)}
    assert evaluate(tmp_path, write, suite, f"base={model(0)}", f"tuned={model(1)}") == 0
    assert "judging tuned, asked: 4 of 4 pairs judged in both orders" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "out" / "judge_verdicts.jsonl").read_text().splitlines()]
    assert len(rows) == 5
    found = json.loads((tmp_path / "out" / "results.json").read_text(), parse_constant=pytest.fail)
    assert [(row["model"], row["set"], row["pairs"]) for row in found["win_rates"]] == [
        ("tuned", "asked", 4), ("tuned", "fixed", 1),
    ]  # fmt: skip
    assert "Win rate against the first model" in (tmp_path / "out" / "report.md").read_text()
    votes = list(read_votes(tmp_path / "out" / "judge_votes.jsonl", pytest.fail))
    assert len(votes) == sum(row[order] is not None for row in rows for order in ("base_first", "base_second")) == 10
    assert {(vote.left.model, vote.right.model) for vote in votes} == {("base", "tuned"), ("tuned", "base")}
    assert {vote.voter for vote in votes} == {Voter("judge", f"likelihood under {model(2)}")}
    assert len({vote.id for vote in votes}) == 10
    for vote, (row, order) in zip(votes, itertools.product(rows, ("base_first", "base_second")), strict=True):
        assert vote.winner == {"first": "left", "second": "right", "tie": "tie"}[row[order]]
        assert vote.left.model == ("base" if order == "base_first" else "tuned")
        assert len(vote.left.digest) == 16
        assert vote.left.digest != vote.right.digest
        assert vote.left.sampling["max_new_tokens"] > 0
        assert vote.left.ending in ("complete", "cut")
    assert main(["ratings", str(tmp_path / "out" / "judge_votes.jsonl"), "--output", str(tmp_path / "ratings")]) == 0
    address = "http://carol:pass-77@127.0.0.1:9/v1?key=pass-77"
    suite["judge"] = {"sets": ["asked"], "model": "m", "endpoint": address, "key_variable": "NO_SUCH_KEY"}
    assert evaluate(tmp_path, write, suite, f"base={model(0)}", f"tuned={model(1)}") == 1
    said = capsys.readouterr()
    assert "NO_SUCH_KEY is empty" in said.err
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Judge: m at http://***@127.0.0.1:9/v1?key=***." in page
    texts = [
        said.out,
        said.err,
        *(file.read_text("latin-1") for file in (tmp_path / "out").rglob("*") if file.is_file()),
    ]
    assert not [text for text in texts if "pass-77" in text or "carol" in text]


def test_items_found_in_training_records_are_reported_separately(
    tmp_path: Path, write: Write, suite: dict[str, Any], model: Callable[[int], str], capsys: pytest.CaptureFixture[str]
) -> None:
    train = write("train.jsonl", [{"instruction": "Say, WHO sings? A bird does.", "output": "桥下住着一只老乌龟。"}])
    items = {
        "near": "Who sings? The bird",
        "far": "Who swims? a fish",
        "zh": "谁住着一只老",
        "short": "sings",
        "none": "…",
    }
    assert contaminated(items, [train], 4) == {"zh", "short"}
    assert contaminated(items, [train], 2) == {"near", "zh", "short"}
    suite["trained_on"], suite["overlap"] = [str(tmp_path / "absent.json")], 2
    assert evaluate(tmp_path, write, suite, f"base={model(0)}") == 1
    assert "trained_on: " in capsys.readouterr().err
    suite["trained_on"] = [train]
    assert evaluate(tmp_path, write, suite, f"base={model(0)}", f"tuned={model(1)}") == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Scores with and without items from the training data" in text
    assert "6 items" in text
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "base"], "expected NAME=MODEL"),
        (["--models", "a=x", "a=y"], "duplicate model name a"),
        (["--models", "a b=x", "a_b=y"], "same folder name as another model"),
        (["--models", "Base=x", "base=y"], "same folder name as another model"),
        (["--models", f"{'a' * 200}b=x", f"{'a' * 200}b_=y", "c\x1b[2J"], "--models c␛[2J: expected NAME=MODEL"),
        (["--models", "a=x", "--suite", "nowhere.yaml"], "nowhere.yaml: no such file"),
    ],
)
def test_mistakes_are_reported_immediately(
    arguments: list[str], message: str, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write("suite.yaml", "choices: {general: {}}")
    assert main(["evaluate", "--suite", suite, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_reason_why_nothing_was_scored_is_printed_once(
    tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = {"choices": {"general": {"rows": 1}}}
    assert evaluate(tmp_path, write, suite, "base=no/such/model", f"runs={tmp_path}") == 2
    said = capsys.readouterr()
    assert said.out == ""
    first, second, last = said.err.splitlines()
    assert first.startswith(f"base: no/such/model: no such folder (in {Path.cwd()}), and not a model name on the hub")
    assert second.startswith(f"runs: {tmp_path}: this folder contains no model")
    assert last == "lit_sft evaluate: nothing could be scored; see the reasons above."


def test_tilde_after_name_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert _models(["a=~/model", "b=gpt2"]) == {"a": "/home/me/model", "b": "gpt2"}


def test_folder_of_runs_suggests_the_newest_run(tmp_path: Path) -> None:
    for number in (2, 10):
        (tmp_path / f"version_{number}").mkdir()
        (tmp_path / f"version_{number}" / "config.yaml").touch()
    with pytest.raises(ValueError, match=r"did you mean the run \S+/version_10\?"):
        open_model("a", str(tmp_path))


def test_no_error_names_a_setting_that_evaluate_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**MODELS["gpt2"], "vocab_size": 259}))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="or copy the tokenizer it was trained with into that folder") as raised:
        open_model("a", str(tmp_path))
    assert "--model" not in str(raised.value)
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"^{re.escape(str(tmp_path))}: the weights could not be loaded"):
        open_model("a", str(tmp_path))
