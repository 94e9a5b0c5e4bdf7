"""Opening models: as they were trained, and on a device that exists."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from data_modules.errors import UserError
from data_modules.records.conversation import Conversation, Message, Role
from lit_sft.__main__ import main
from lit_sft.runs import opening
from lit_sft.runs.opening import device_named, open_model
from tests.conftest import MODELS, alpaca_rows

PROMPT = Conversation((Message(Role.USER, "Hi"),), "f:1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda", "--device cuda: PyTorch finds no such device on this machine; expected auto or cpu"),
        ("cuda:1", "--device cuda:1: PyTorch finds no such device"),
        ("gpu", "--device gpu: no such device; expected auto, cpu, cuda"),
        ("mps", "--device mps: no such device; expected auto, cpu, cuda"),
    ],
)
def test_missing_device_is_refused(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(UserError, match=message):
        device_named(name)
    with pytest.raises(UserError, match=message):
        open_model("a", "no/such/model", device=name)


def test_device_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [device_named(name) for name in ("auto", "cpu", "cuda:1")] == ["cpu", "cpu", "cuda:1"]


def test_run_of_a_convention_is_asked_with_its_template(
    write: Callable[..., str], tokenizer_folder: str, tmp_path: Path
) -> None:
    config = {"model": {"backbone": {"config": MODELS["gpt2"], "tokenizer": tokenizer_folder}}}
    fit = [
        "fit", "--config", write("run.yaml", json.dumps(config)), "--data.train", write("train.jsonl", alpaca_rows(20)),
        "--data.convention", "litgpt", "--trainer.max_steps", "1", "--trainer.accelerator", "cpu",
        "--run.root", str(tmp_path / "runs"), "--trainer.enable_progress_bar", "false",
    ]  # fmt: skip
    assert main(fit) == 0
    run = tmp_path / "runs" / "run" / "version_0"
    for place in (run, run / "model"):
        text = "".join(part.text for part in open_model("m", str(place)).encoder.template.render(PROMPT))
        assert text.endswith("### Instruction:\nHi\n\n### Response:\n"), place


def test_models_are_opened_one_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The parser of a run's settings changes the working folder, and weights are drawn from global random numbers."""
    others = list[bool]()

    def opened(source: str) -> None:
        other = threading.Thread(target=lambda: others.append(opening._OPENING.acquire(blocking=False)))
        other.start()
        other.join()
        raise UserError("seen")

    monkeypatch.setattr(opening, "_opened", opened)
    with pytest.raises(UserError, match="seen"):
        open_model("tiny", str(tmp_path), device="cpu")
    assert others == [False]
    assert opening._OPENING.acquire(blocking=False), "the lock is released after an error"
    opening._OPENING.release()
