"""Adapters are used on the base model that they were trained on, or refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from data_modules import digests
from data_modules.sft_data_module import SFTDataModule
from lit_sft.models.adapters import LoraSettings, causal_lm
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.base_weights import base_identity, check_base, identity_of, quick_identity
from lit_sft.models.saving import export_model, load_weights
from lit_sft.runs.opening import open_model
from lit_sft.training.module import LitCausalLM
from tests.conftest import MODELS, byte_tokenizer, chat_rows
from tests.training import make_module, make_trainer, train

MakeData = Callable[..., SFTDataModule]

pytestmark = [
    # peft asks for a property that transformers has renamed
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
]


@pytest.fixture(scope="module")
def _base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    model = causal_lm(build_backbone(BackboneSettings(config=MODELS["llama"]), byte_tokenizer()))
    model.resize_token_embeddings(9000)  # more than a megabyte: the last layers lie behind it in the file
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def base(_base: Path, tmp_path: Path) -> Path:
    shutil.copytree(_base, tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def data(make_data: MakeData) -> SFTDataModule:
    return make_data(chat_rows(6), template="plain", mask="firefly_multi_turn", batch_size=2)


def lora(base: Path) -> BackboneSettings:
    return BackboneSettings(pretrained=str(base), tuning="lora", lora=LoraSettings(rank=2))


def change_weights(base: Path) -> None:
    """One weight of the last tensor of the file, which a digest of the start of the file does not cover."""
    before, path = quick_identity(str(base)), base / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"][0] += 0.5
    save_file(weights, path, {"format": "pt"})
    assert quick_identity(str(base)) == before


def change_config(base: Path, **values: Any) -> None:
    path = base / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def module_of(settings: BackboneSettings) -> LitCausalLM:
    return LitCausalLM(settings, make_module().optimizer_settings)


def trained(settings: BackboneSettings, data: SFTDataModule, folder: Path) -> Path:
    """The checkpoint of a short run."""
    module = train(data, folder, module_of(settings), max_steps=1)
    module.trainer.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_changed_base_is_refused_by_every_reader_of_a_checkpoint(
    base: Path, data: SFTDataModule, tmp_path: Path, tuning: str
) -> None:
    settings = lora(base) if tuning == "lora" else BackboneSettings(pretrained=str(base))
    checkpoint = trained(settings, data, tmp_path)
    load_weights(build_backbone(settings, data.tokenizer), checkpoint)
    if tuning == "lora":
        change_weights(base)
        message = r"last\.ckpt: trained on a base model other than .*base: digest of its weights [0-9a-f]{12}, expected"
    else:
        change_config(base, rms_norm_eps=1e-2)  # weights no longer matter, but the config does
        message = r"last\.ckpt: trained on a base model other than .*base: digest of its config [0-9a-f]{12}, expected"
    with pytest.raises(ValueError, match=message):
        load_weights(build_backbone(settings, data.tokenizer), checkpoint)
    options: dict[str, Any] = {"datamodule": data, "ckpt_path": checkpoint, "weights_only": True}
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path).validate(module_of(settings), verbose=False, **options)
    if tuning == "lora":
        with pytest.raises(ValueError, match=f"{message}.*allow the change with `--run.allow_changes true`"):
            make_trainer(tmp_path, max_steps=2).fit(module_of(settings), **options)


def test_a_changed_base_can_be_allowed_when_resuming(base: Path, data: SFTDataModule, tmp_path: Path) -> None:
    checkpoint = trained(lora(base), data, tmp_path)
    change_weights(base)
    module = module_of(lora(base))
    module.allow_changes = True
    with pytest.warns(
        UserWarning, match=r"last\.ckpt: trained on a base model other than .*base: digest of its weights"
    ):
        make_trainer(tmp_path, max_steps=2).fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    assert module.trainer.global_step == 2


def test_an_exported_adapter_is_refused_on_another_base(base: Path, data: SFTDataModule, tmp_path: Path) -> None:
    model = build_backbone(lora(base), data.tokenizer)
    export_model(model, tmp_path / "adapter", data)
    open_model("m", str(tmp_path / "adapter"), device="cpu")
    change_weights(base)
    with pytest.raises(ValueError, match=r"adapter: trained on a base model other than .*base: digest of its weights"):
        open_model("m", str(tmp_path / "adapter"), device="cpu")


def test_random_base_from_another_seed_is_refused(data: SFTDataModule, tmp_path: Path) -> None:
    module = train(data, tmp_path, make_module("gpt2", tuning="lora", seed=1), max_steps=1)
    module.trainer.save_checkpoint(tmp_path / "last.ckpt")
    torch.manual_seed(1)
    load_weights(build_backbone(module.backbone_settings, data.tokenizer), tmp_path / "last.ckpt")
    torch.manual_seed(2)
    with pytest.raises(ValueError, match="trained on other random weights"):
        load_weights(build_backbone(module.backbone_settings, data.tokenizer), tmp_path / "last.ckpt")


def test_checkpoints_of_older_versions_are_read_without_a_base(base: Path, data: SFTDataModule, tmp_path: Path) -> None:
    checkpoint = trained(lora(base), data, tmp_path)
    saved = torch.load(checkpoint, weights_only=True)
    assert saved.pop("base").keys() == {"name", "config", "weights"}
    torch.save(saved, checkpoint)
    load_weights(build_backbone(lora(base), data.tokenizer), checkpoint)
    make_trainer(tmp_path, max_steps=2).fit(
        module_of(lora(base)), datamodule=data, ckpt_path=checkpoint, weights_only=True
    )


def test_moved_base_and_changes_that_affect_no_metric_are_accepted(
    base: Path, data: SFTDataModule, tmp_path: Path
) -> None:
    before = identity_of(build_backbone(lora(base), data.tokenizer))
    shutil.move(base, tmp_path / "moved")
    change_config(tmp_path / "moved", transformers_version="9.9", use_cache=False)
    after = identity_of(build_backbone(lora(tmp_path / "moved"), data.tokenizer))
    check_base(before, after, "m.ckpt")
    assert before["weights"] == after["weights"]


@pytest.fixture
def digested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read to compute a digest; every file counts as settled."""
    names: list[str] = []
    compute = digests.file_digest

    def count(path: Path) -> str:
        names.append(path.name)
        digests._computed.clear()
        return compute(path)

    monkeypatch.setattr("lit_sft.models.base_weights.file_digest", count)
    monkeypatch.setattr("lit_sft.models.base_weights.is_settled", lambda _: True)
    return names


def identify(base: Path) -> dict[str, str]:
    model: Any = nn.Module()
    model.name_or_path, model.config = str(base), None
    return base_identity(model, with_weights=True)


def test_a_base_is_read_once_until_its_size_or_time_changes(base: Path, digested: list[str], tmp_path: Path) -> None:
    first = identify(base)
    assert identify(base) == first
    assert digested == ["model.safetensors"]
    (note,) = (tmp_path / "cache" / "digests").iterdir()
    content = note.read_text()
    path = base / "model.safetensors"
    os.utime(path, ns=(1, 1))
    assert identify(base) == first
    assert len(digested) == 2
    change_weights(base)
    assert identify(base) != first
    assert len(digested) == 3
    assert content != note.read_text()


def test_damaged_digest_cache_is_ignored(base: Path, digested: list[str], tmp_path: Path) -> None:
    first = identify(base)
    (note,) = (tmp_path / "cache" / "digests").iterdir()
    content = note.read_bytes()
    for place in range(0, len(content), 7):
        for bit in (0, 4):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            note.write_bytes(bytes(damaged))
            assert identify(base) == first
    note.write_text("[1]")
    assert identify(base) == first


def test_a_cache_that_cannot_be_written_costs_time_only(
    base: Path, digested: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = identify(base)
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIT_SFT_CACHE", str(tmp_path / "file"))
    assert identify(base) == first
    monkeypatch.setenv("LIT_SFT_CACHE", "~nobody-of-this-name/cache")
    assert identify(base) == first
    assert len(digested) == 3


def test_hub_model_is_identified_by_its_downloaded_files(
    base: Path, data: SFTDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "hub" / "models--someone--llama"
    shutil.copytree(base, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    settings = BackboneSettings(pretrained="someone/llama", tokenizer="t", tuning="lora", lora=LoraSettings(rank=2))
    found, expected = (
        identity_of(build_backbone(settings, data.tokenizer)),
        identity_of(build_backbone(lora(base), data.tokenizer)),
    )
    assert found == expected | {"name": "someone/llama"}
    change_weights(repository / "snapshots" / "abc")
    with pytest.raises(ValueError, match="trained on a base model other than someone/llama: digest of its weights"):
        check_base(found, identity_of(build_backbone(settings, data.tokenizer)), "m.ckpt")
    weights = load_file(repository / "snapshots" / "abc" / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"].to(torch.int8)
    save_file(weights, repository / "snapshots" / "abc" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"someone/llama: model\.norm\.weight has dtype I8"):
        build_backbone(settings, data.tokenizer)
