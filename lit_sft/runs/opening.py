"""Opens a hub name, a Hugging Face folder, an adapter, a run or a checkpoint as a model."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data_modules.digests import check_digests
from data_modules.encoding.tokenizers import load_tokenizer
from data_modules.errors import UserError
from data_modules.rendering.templates import AnyTemplate, TemplateName
from lit_sft.files import read_json
from lit_sft.models.adapters import causal_lm, load_adapter
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.loaded import LoadedModel
from lit_sft.models.quantization import Quantization, quantize
from lit_sft.models.saving import load_weights
from lit_sft.runs.folders import find_run
from lit_sft.runs.model_paths import check_model_paths
from lit_sft.settings.reading import Settings, read_settings

_OPENING = threading.RLock()
"""A process opens one model at a time. Meanwhile the parser of a run's settings changes the working folder, and weights
are drawn from the global random state."""


def backbone_of_run(settings: Settings, tokenizer: PreTrainedTokenizerBase, checkpoint: Path) -> nn.Module:
    """Build the model of a run with the weights of a checkpoint.

    Args:
        settings: The run's settings.
        tokenizer: The model's tokenizer.
        checkpoint: A checkpoint of the run.

    Raises:
        UserError: If the checkpoint is damaged or belongs to another model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # frozen random weights depend on it
        backbone = build_backbone(settings.backbone(), tokenizer)
    load_weights(backbone, checkpoint)
    return backbone


def open_model(
    name: str,
    source: str,
    *,
    template: TemplateName | None = None,
    device: str = "auto",
    dtype: torch.dtype | None = None,
) -> LoadedModel:
    """Load a model. Threads that load models wait for each other.

    Args:
        name: Its name in tables.
        source: A folder with a model or an adapter, a hub name, a run folder, or a checkpoint in one.
        template: Prompt template. None: the one it was trained with, if recorded; else `auto`.
        device: `auto` uses a GPU if there is one.
        dtype: Dtype of the weights. None: bfloat16 on a GPU that supports it, else float32.

    Raises:
        UserError: If there is no such model, or it cannot be read.
    """
    place = device_named(device)
    with _OPENING:
        backbone, tokenizer, own = _opened(source)
    if dtype is None:
        dtype = (
            torch.bfloat16
            if place.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)
            else torch.float32
        )
    backbone = backbone.to(place, dtype).eval().requires_grad_(False)
    budget = 16384 if place.startswith("cuda") else 4096
    return LoadedModel(name, backbone, tokenizer, template or own, budget)


def _opened(source: str) -> tuple[nn.Module, PreTrainedTokenizerBase, TemplateName | AnyTemplate]:
    if source.endswith(".ckpt") or (Path(source) / "config.yaml").is_file():
        return _of_run(source)
    with settings_unnamed():
        return (_of_adapter if is_adapter(source) else _of_model)(source)


def device_named(name: str) -> str:
    """The device with a name; for `auto`, a GPU if there is one.

    Raises:
        UserError: If there is no such device, or PyTorch does not find it on this machine.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kinds = {"cpu": 1, "cuda": torch.cuda.device_count()}  # not MPS, which has no float64
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in kinds:
        raise UserError(f"--device {name}: no such device; expected auto, cpu, cuda or one such as cuda:1.")
    if (device.index or 0) >= kinds[device.type]:
        raise UserError(f"--device {name}: PyTorch finds no such device on this machine; expected auto or cpu.")
    return name


def _of_run(source: str) -> tuple[nn.Module, PreTrainedTokenizerBase, AnyTemplate]:
    run, checkpoint = find_run(source)
    settings = read_settings(run.config, run_config=run.config)
    check_model_paths(settings)
    data = settings.data_module()
    return backbone_of_run(settings, data.tokenizer, checkpoint), data.tokenizer, data.encoder.template


def is_adapter(source: str) -> bool:
    """Whether a folder contains an adapter and no model."""
    return (Path(source) / "adapter_config.json").is_file() and not (Path(source) / "config.json").is_file()


def _of_model(source: str) -> tuple[nn.Module, PreTrainedTokenizerBase, TemplateName]:
    check_folder(source)
    tokenizer = load_tokenizer(source)
    return build_backbone(BackboneSettings(pretrained=source), tokenizer), tokenizer, _template_of(source)


def _of_adapter(source: str) -> tuple[nn.Module, PreTrainedTokenizerBase, TemplateName]:
    folder = Path(source)
    check_digests(folder, weights=False)
    base, new_tokens = base_of_adapter(source), _new_tokens(folder)
    has_tokenizer = (folder / "tokenizer.json").is_file()
    if new_tokens and not has_tokenizer:
        raise UserError(f"{folder}: has new tokens, but no tokenizer.json. Copy it from the run, or export it again.")
    tokenizer = load_tokenizer(str(folder) if has_tokenizer else base)
    model = build_backbone(BackboneSettings(pretrained=base, add_tokens=new_tokens), tokenizer)
    _quantize_as_in_training(causal_lm(model), folder)
    return load_adapter(model, folder), tokenizer, _template_of(str(folder))


def _new_tokens(folder: Path) -> list[str]:
    """Tokens that an adapter's run added to the tokenizer of its base, so that the base gets rows for them."""
    path = folder / "lit_sft.json"
    tokens = (read_json(path, advice="export the adapter again") or {}).get("new_tokens", [])
    if not (isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)):
        raise UserError(f"{path}: new_tokens {tokens!r}; expected a list of strings.")
    return tokens


def _quantize_as_in_training(model: PreTrainedModel, folder: Path) -> None:
    """Quantise the base of an adapter if it was trained on quantised weights, so that it computes what was trained."""
    path = folder / "lit_sft.json"
    base = (read_json(path, advice="export the adapter again") or {}).get("base")
    kind = base.get("quantization") if isinstance(base, dict) else None
    if kind is None:
        return
    if kind not in get_args(Quantization):
        raise UserError(f"{path}: quantization {kind!r}; expected one of {', '.join(get_args(Quantization))}.")
    settings = read_json(folder / "adapter_config.json", advice="copy the adapter again") or {}
    quantize(model, kind, settings.get("modules_to_save") or ())


def base_of_adapter(source: str) -> str:
    """The folder or hub name of the model that an adapter belongs to.

    Raises:
        UserError: If the adapter does not name it.
    """
    settings = read_json(Path(source) / "adapter_config.json", advice="copy the adapter again") or {}
    base = settings.get("base_model_name_or_path")
    if not base or not isinstance(base, str):
        raise UserError(f"{source}: its adapter_config.json does not name its base model.")
    return base


def _template_of(source: str) -> TemplateName:
    """The template that a model folder was trained with, if this project wrote it; else `auto`."""
    path = Path(source) / "lit_sft.json"
    written = read_json(path, advice="export the model again") or {}
    name: TemplateName = written.get("template", "auto")
    if name not in get_args(TemplateName):
        raise UserError(f"{path}: template {name!r}; expected one of {', '.join(get_args(TemplateName))}.")
    return name


def check_folder(source: str) -> None:
    """Reject a folder that contains no model.

    Args:
        source: A folder, or a name on the hub.

    Raises:
        UserError: If it is a folder without a model; suggests a run in it.
    """
    folder = Path(source)
    if not folder.is_dir() or (folder / "config.json").is_file():
        return
    runs = [found.parent for found in folder.glob("version_*/config.yaml") if found.parent.name[8:].isdecimal()]
    newest = max(runs, key=lambda run: int(run.name[8:]), default=None)
    raise UserError(
        f"{source}: this folder contains no model (config.json), adapter (adapter_config.json) or run (config.yaml); "
        + (f"did you mean the run {newest}?" if newest else "name a folder that has one of them.")
    )


_COPY = "copy the tokenizer it was trained with into that folder"


@contextlib.contextmanager
def settings_unnamed() -> Iterator[None]:
    """Remove the names of `fit`'s settings from errors about a model that the user named directly.

    Raises:
        UserError: The same error, without names of settings.
    """
    try:
        yield
    except UserError as error:
        text = str(error).replace("--model.backbone.pretrained ", "")
        setting = r"([Ss])et `--model\.backbone\.tokenizer[^`]*`( to the (tokenizer|one)[^.;]*)?"
        text = re.sub(setting, lambda found: _COPY.capitalize() if found[1] == "S" else _COPY, text)
        raise UserError(text) from error
