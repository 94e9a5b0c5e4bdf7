"""What a user names as a model."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.errors import UserError
from lit_sft.models.adapters import LoraSettings, causal_lm
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.runs.folders import Run
from lit_sft.runs.sources import ModelSource, find_source
from tests.lit_sft.models.test_generation import build


@pytest.fixture
def folder(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    causal_lm(build("gpt2", tokenizer)).save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The files of a run, by which it is found."""
    folder = tmp_path / "runs" / "small" / "version_3"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text("data_module: text\n")
    for name in ("last", "step_10"):
        (folder / "checkpoints" / f"{name}.ckpt").write_bytes(b"")
    return folder


def test_a_folder_is_found_and_loaded_under_a_name(folder: Path) -> None:
    source = find_source(str(folder))
    assert (source.name, source.run, source.is_of_text) == ("tiny", None, False)
    assert source.load("mine").name == "mine"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_is_found_and_loaded_into_its_base(
    folder: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    settings = BackboneSettings(pretrained=str(folder), tuning="lora", lora=LoraSettings(rank=2))
    adapted: Any = build_backbone(settings, tokenizer)
    adapted.save_pretrained(tmp_path / "adapter")
    source = find_source(str(tmp_path / "adapter"))
    source.check()
    assert any("lora_" in name for name, _ in source.load(source.name).backbone.named_parameters())


def test_a_run_and_its_checkpoints_have_names_of_their_own(run: Path) -> None:
    source = find_source(str(run))
    assert source.name == "small/version_3"
    assert source.about.startswith(f"run {run}, last.ckpt (")
    other = find_source(str(run / "checkpoints" / "step_10.ckpt"))
    assert other.name == "small/version_3_step_10"
    assert other.is_of_text


def test_the_newest_run_is_found_without_a_name(run: Path) -> None:
    source = find_source(None, str(run.parents[1]))
    assert source.name == "small/version_3"


def test_a_path_that_exists_elsewhere_only_is_found_before_loading(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs" / "small" / "version_0"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(
        "model:\n  backbone:\n    pretrained: tiny\ndata:\n  train: rows.jsonl\n", encoding="utf-8"
    )
    source = ModelSource("unused", Run(run), "")
    monkeypatch.chdir(tmp_path)
    source.check()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=rf"tiny: no such folder .* but {folder} exists.* Run the command in"):
        source.check()


def test_a_hub_name_stays_as_it_is() -> None:
    source = find_source("Qwen/Qwen3-0.6B")
    assert (source.path, source.name, source.about) == ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B", "model Qwen/Qwen3-0.6B")


def test_what_cannot_be_a_model_is_refused_before_anything_is_loaded(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="this folder contains no model"):
        find_source(str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"no such folder.*did you mean"):
        find_source(f"{folder}x")
    with pytest.raises(UserError, match="no such checkpoint"):
        find_source(str(tmp_path / "x.ckpt"))


@pytest.mark.parametrize(
    ("setting", "is_text"), [("data_module: text", True), ("data_module: sft", False), ("{}", False)]
)
def test_a_run_on_plain_text_is_recognised(tmp_path: Path, setting: str, is_text: bool) -> None:
    (tmp_path / "config.yaml").write_text(setting)
    assert ModelSource("", Run(tmp_path), "").is_of_text is is_text


@pytest.mark.parametrize(
    "command", [["chat"], ["serve", "--port", "0"], ["arena", "--models"]], ids=lambda each: each[0]
)
def test_a_hub_name_is_looked_up_before_anything_starts(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading would ask for each file several times, half a minute in all."""
    for package in {"serve": ["starlette", "uvicorn"], "arena": ["gradio"]}.get(command[0], []):
        pytest.importorskip(package, reason=f"needs the extra `{command[0]}`")
    monkeypatch.setattr(ModelSource, "load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(UserError, match=r"nosuch/folder: no such folder \(in .*\), and the hub cannot be asked"):
        importlib.import_module(_MODULES[command[0]]).main([*command, "nosuch/folder"])


_MODULES = {
    "chat": "lit_sft.chat.command", "serve": "lit_sft.serve.command", "arena": "lit_sft.arena.arena_command",
}  # fmt: skip


def test_the_base_of_an_adapter_and_the_model_of_a_run_are_looked_up(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "nosuch/base"}')
    with pytest.raises(UserError, match="nosuch/base: no such folder"):
        find_source(str(tmp_path)).check()
    run = tmp_path / "runs" / "small" / "version_0"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("model:\n  backbone:\n    pretrained: nosuch/model\ndata:\n  train: rows.jsonl\n")
    with pytest.raises(UserError, match="nosuch/model: no such folder"):
        ModelSource("unused", Run(run), "").check()
