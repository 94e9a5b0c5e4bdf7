"""Exported folders: either complete or unchanged, and every changed bit is noticed when they are read."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from data_modules.digests import DIGESTS, check_digests
from data_modules.encoding.tokenizers import load_tokenizer
from data_modules.records.conversation import Conversation, Message, Role
from data_modules.sft_data_module import SFTDataModule
from lit_sft.models.adapters import LoraSettings, load_adapter
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.saving import export_model
from lit_sft.runs.opening import open_model
from tests.conftest import MODELS, alpaca_rows, byte_tokenizer, chat_rows
from tests.flips import flipped

MakeData = Callable[..., SFTDataModule]

# peft asks for a property that transformers has renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def data(make_data: MakeData) -> SFTDataModule:
    return make_data(chat_rows(2), template="chatml")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    model: Any = build_backbone(BackboneSettings(config=MODELS["llama"]), byte_tokenizer())
    model.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def adapted(base: Path) -> nn.Module:
    settings = BackboneSettings(pretrained=str(base), tuning="lora", lora=LoraSettings(rank=2))
    return build_backbone(settings, byte_tokenizer())


def export(kind: str, base: Path, folder: Path, data: SFTDataModule) -> Path:
    if kind == "model":
        export_model(build_backbone(BackboneSettings(config=MODELS["gpt2"]), byte_tokenizer()), folder, data)
    else:
        export_model(adapted(base), folder, data, merge=kind == "merged")
    return folder


@pytest.mark.parametrize("kind", ["model", "adapter", "merged"])
def test_every_flipped_bit_of_an_exported_folder_is_noticed(
    kind: str, base: Path, data: SFTDataModule, tmp_path: Path
) -> None:
    folder = export(kind, base, tmp_path / kind, data)
    files = sorted(path for path in folder.iterdir() if path.name != "README.md")
    assert {"lit_sft.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", DIGESTS} < {
        path.name for path in files
    }
    for number, file in enumerate(files):
        for flip in flipped(file, count=12, seed=number):
            with pytest.raises(ValueError, match=re.escape(str(folder))):
                check_digests(flip.parent)
    check_digests(folder)


@pytest.mark.parametrize("kind", ["model", "adapter", "merged"])
def test_every_reader_notices_a_changed_file(kind: str, base: Path, data: SFTDataModule, tmp_path: Path) -> None:
    folder = export(kind, base, tmp_path / kind, data)
    names = ["config.json", "model.safetensors"]
    readers: list[Callable[[], Any]] = [lambda: open_model("m", str(folder), device="cpu")]
    for read in readers:
        read()
    if kind == "adapter":
        names = [f"adapter_{name}" for name in names]
        bare = build_backbone(BackboneSettings(pretrained=str(base)), data.tokenizer)
        readers.append(lambda: load_adapter(bare, folder))
    else:
        readers.append(lambda: build_backbone(BackboneSettings(pretrained=str(folder)), data.tokenizer))
    for name in names:
        for _ in flipped(folder / name, count=3, seed=3):
            for read in readers:
                with pytest.raises(ValueError, match=rf"{name}: changed since it was exported"):
                    read()
    for name in ("tokenizer.json", "lit_sft.json"):
        for _ in flipped(folder / name, count=3, seed=4):
            for read in (readers[0], lambda: load_tokenizer(str(folder))):
                with pytest.raises(ValueError, match=rf"{name}: changed since it was exported"):
                    read()


def test_a_file_edited_on_purpose_is_accepted_once_its_line_is_deleted(
    base: Path, data: SFTDataModule, tmp_path: Path
) -> None:
    folder = export("model", base, tmp_path / "m", data)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layer_norm_epsilon": 1e-3}))
    with pytest.raises(
        ValueError, match=rf"config\.json: changed.*if you edited the file on purpose, delete its line from {DIGESTS}"
    ):
        build_backbone(BackboneSettings(pretrained=str(folder)), data.tokenizer)
    lines = (folder / DIGESTS).read_text().splitlines(keepends=True)
    (folder / DIGESTS).write_text("".join(line for line in lines if not line.endswith("  config.json\n")))
    model: Any = build_backbone(BackboneSettings(pretrained=str(folder)), data.tokenizer)
    assert model.config.layer_norm_epsilon == 1e-3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), r"tokenizer\.json is missing"),
        (lambda f: (f / DIGESTS).write_text("nonsense"), rf"{DIGESTS}:1: damaged; expected"),
        (lambda f: (f / DIGESTS).write_text(f"{'0' * 64}  ../../x\n"), rf"{DIGESTS}:1: damaged; expected"),
        (lambda f: (f / DIGESTS).write_bytes(b"\xff\n"), rf"{DIGESTS}:1: damaged; expected"),
        (lambda f: (f / DIGESTS).write_text((f / DIGESTS).read_text() * 2), rf"{DIGESTS}:\d+: .* each file once"),
    ],
)
def test_a_damaged_folder_is_refused(
    base: Path, data: SFTDataModule, tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    folder = export("model", base, tmp_path / "m", data)
    damage(folder)
    with pytest.raises(ValueError, match=message):
        open_model("m", str(folder), device="cpu")


def test_exporting_replaces_what_was_exported_before_and_keeps_other_files(
    base: Path, data: SFTDataModule, tmp_path: Path
) -> None:
    folder = export("merged", base, tmp_path / "m", data)
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"stale")
    (folder / "model.safetensors.index.json").write_text("{}")
    (folder / "notes.txt").write_text("mine")
    (folder / "mine").mkdir()
    export("adapter", base, folder, data)
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_model.safetensors", "notes.txt", "mine"} <= names
    assert not names & {"config.json", "model.safetensors", "model.safetensors.index.json"}
    assert not [name for name in names if name.startswith("model-")]
    open_model("m", str(folder), device="cpu")
    export("merged", base, folder, data)
    names = {path.name for path in folder.iterdir()}
    assert not [name for name in names if name.startswith("adapter")]
    assert {"config.json", "model.safetensors", "notes.txt"} <= names
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_failed_export_leaves_the_previous_one(
    base: Path, data: SFTDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export("merged", base, tmp_path / "m", data)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lit_sft.models.saving.write_digests", fail)
    with pytest.raises(KeyboardInterrupt):
        export("adapter", base, folder, data)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_export_killed_between_renames_is_restored(base: Path, data: SFTDataModule, tmp_path: Path) -> None:
    folder = export("merged", base, tmp_path / "m", data)
    (folder / "notes.txt").write_text("mine")
    folder.rename(tmp_path / ".m.before")
    (tmp_path / ".m.partial").mkdir()
    export("adapter", base, folder, data)
    assert (folder / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir() if "m" in path.name.split(".")) == ["m"]


def test_weights_of_an_exported_model_are_those_of_the_model(base: Path, data: SFTDataModule, tmp_path: Path) -> None:
    model = adapted(base)
    export_model(model, tmp_path / "a", data)
    saved = load_file(tmp_path / "a" / "adapter_model.safetensors")
    own = {name.replace(".default", ""): value for name, value in model.named_parameters() if value.requires_grad}
    assert saved.keys() == own.keys()
    assert all(torch.equal(saved[name], own[name]) for name in saved)
    shutil.copytree(tmp_path / "a", tmp_path / "copy")  # the list has names, not paths
    check_digests(tmp_path / "copy")


@pytest.mark.parametrize(
    ("convention", "template"), [("litgpt", "alpaca"), ("llamafactory", "alpaca"), ("torchtune", "auto")]
)
def test_export_of_a_convention_asks_with_its_template(
    convention: str, template: str, make_data: MakeData, tmp_path: Path
) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
    data = make_data(alpaca_rows(2), tokenizer=tokenizer, convention=convention, template=template)
    export_model(build_backbone(BackboneSettings(config=MODELS["gpt2"]), data.tokenizer), tmp_path / "m", data)
    prompt = Conversation((Message(Role.USER, "a", context="b"),), "f:1")
    (expected,) = data.encoder.encode(prompt)
    (found,) = open_model("m", str(tmp_path / "m")).encoder.encode(prompt)
    assert found.input_ids.tolist() == expected.input_ids.tolist()
