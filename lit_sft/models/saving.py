"""Saves models as Hugging Face folders for transformers and peft, and loads weights from checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerBase

from data_modules.digests import DIGESTS, write_digests
from data_modules.errors import UserError
from data_modules.rendering.templates import TEMPLATES, Template, resolve_template
from data_modules.sft_data_module import SFTDataModule
from data_modules.text_data_module import TextDataModule
from data_modules.wording import listed
from lit_sft.checkpoints.digests import check_intact
from lit_sft.files import replaced_folder, write_json, write_text
from lit_sft.models.adapters import causal_lm, is_adapted
from lit_sft.models.base_weights import check_base, identity_of
from lit_sft.models.casting import DtypeName, cast_folder
from lit_sft.models.chat_template import jinja_of
from lit_sft.models.lora_starts import restore_first_factors, save_adapter
from lit_sft.models.pretrained import check_finite, first_line
from lit_sft.models.quantization import dequantize

AnyData = SFTDataModule | TextDataModule

WRITTEN = {
    "config.json", "generation_config.json", "adapter_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt", "chat_template.jinja",
    "README.md", "lit_sft.json", DIGESTS,
}  # fmt: skip
"""Files that an export may contain besides the weights."""


def export_model(
    backbone: nn.Module,
    folder: Path,
    data: AnyData,
    *,
    merge: bool = False,
    dtype: DtypeName = "float32",
    card: Callable[[nn.Module], str] | None = None,
) -> None:
    """Write the model (or adapter), tokenizer, chat template and generation settings.

    Args:
        backbone: The trained model.
        folder: The folder to write; created if needed.
        data: Its tokenizer and template are saved too: `apply_chat_template` renders the text that was trained, and
            gives a prompt the ids that were trained. Earlier answers were trained as strings of their own, so their
            ids may differ at the edges. After training on text, the tokenizer is saved unchanged.
        merge: Merge adapters into the weights; otherwise only the adapter is written. Adapters on random weights are
            always merged, because nobody else has those weights.
        dtype: Dtype of the weights in the file. The model itself is unchanged.
        card: Gives the model card of what is written. None: no README.md.

    Raises:
        OSError: If the folder cannot be written. An existing folder is then unchanged.
        UserError: If a weight is too large for the dtype.
    """
    model = merged(backbone) if is_adapted(backbone) and (merge or not _has_base(backbone)) else backbone
    try:
        with replaced_folder(folder, is_written=_is_written) as aside:
            _write_model(model, aside, data)
            (aside / "README.md").unlink(missing_ok=True)  # peft's form with blanks
            if card:
                write_text(aside / "README.md", card(model))
            if dtype != "float32":
                cast_folder(aside, dtype, kept={name for name, _ in model.named_buffers()})
            write_digests(aside)
    except SafetensorError as error:
        raise OSError(
            f"{folder}: the model could not be written ({first_line(error)}). Free some disk space, then run `export`."
        ) from error


def _write_model(model: nn.Module, folder: Path, data: AnyData) -> None:
    generation = GenerationConfig(eos_token_id=data.end_token_id, pad_token_id=data.pad_token_id, do_sample=False)
    inner = causal_lm(model)
    defaults, inner.generation_config = inner.generation_config, generation
    inner.config.pad_token_id = data.pad_token_id
    try:
        save_adapter(model, folder) if is_adapted(model) else model.save_pretrained(folder)  # type: ignore[operator]
    finally:
        inner.generation_config, inner.config.pad_token_id = defaults, None
    generation.save_pretrained(folder)
    exported_tokenizer(data).save_pretrained(folder)
    _save_settings(folder, data, model if is_adapted(model) else None)
    for weights in folder.glob("*.safetensors"):  # written with owner-only permissions
        weights.chmod((folder / "lit_sft.json").stat().st_mode)


def read_checkpoint(path: Path, **options: Any) -> dict[str, Any]:
    """Read a Lightning checkpoint.

    Raises:
        UserError: If it is missing or damaged; the message names other checkpoints in the folder.
    """
    others = ", ".join(str(other) for other in sorted(path.parent.glob("*.ckpt")) if other != path)
    advice = f"; in the same folder: {others}" if others else ""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint{advice}.")
    check_intact(path, advice)
    try:
        saved: dict[str, Any] = torch.load(path, weights_only=True, **options)
    except Exception as error:
        # a broken file raises any of a dozen exception types
        raise UserError(f"{path}: damaged, truncated or not a checkpoint ({type(error).__name__}){advice}.") from None
    if not isinstance(saved, dict) or not isinstance(saved.get("state_dict"), dict):
        raise UserError(f"{path}: not a checkpoint of a run: it has no state_dict{advice}.")
    return saved


def check_checkpoint(path: str | None, *, is_named: bool, to_train: bool) -> None:
    """Refuse a checkpoint that Lightning could not resume or test.

    Args:
        path: The checkpoint. None and Lightning's keywords are not checked.
        is_named: Whether the user passed it as `--ckpt_path`, rather than naming its run.
        to_train: Whether training resumes from it.

    Raises:
        UserError: If it is damaged, not from a run, or cannot be resumed.
    """
    if path is None or path in ("best", "last", "hpc"):
        return
    where = "--ckpt_path " if is_named else ""
    try:
        saved = read_checkpoint(Path(path), map_location="meta", mmap=True)
    except ValueError as error:
        raise UserError(f"{where}{error}") from None
    if "pytorch-lightning_version" not in saved or "global_step" not in saved:
        raise UserError(f"{where}{path}: not a checkpoint of a run; name one from a run's `checkpoints` folder.")
    if to_train and not {"optimizer_states", "lr_schedulers", "loops"} <= saved.keys():
        raise UserError(
            f"{where}{path}: contains only weights, so it cannot be resumed. To start a new run from them, `export` "
            "them and set `--model.backbone.pretrained` to that folder."
        )


def load_weights(
    backbone: nn.Module, checkpoint: Path, *, prefix: str = "backbone.", allow_changes: bool = False
) -> dict[str, float]:
    """Load the weights of a Lightning checkpoint into a backbone.

    Args:
        backbone: A model from `build_backbone`.
        checkpoint: A checkpoint of a run with the same backbone.
        prefix: Prefix of the backbone's weights in the checkpoint.
        allow_changes: Warn instead of refusing if it was trained on another base model.

    Returns:
        The validation metrics of these weights, with the `step`; empty if they were saved between validations.

    Raises:
        UserError: If the weights do not fit the model.
    """
    saved = read_checkpoint(checkpoint, map_location="cpu")
    state = {n.removeprefix(prefix): value for n, value in saved["state_dict"].items() if n.startswith(prefix)}
    check_fit(state, backbone, str(checkpoint), adapted=is_adapted(backbone))
    check_base(saved.get("base"), identity_of(backbone), str(checkpoint), allow_changes=allow_changes)
    restore_first_factors(backbone, saved.get("first_factors"), str(checkpoint))
    backbone.load_state_dict(state, strict=False)  # only frozen and tied weights may be missing
    check_finite(backbone, str(checkpoint))
    metrics: dict[str, float] = saved.get("figures", {})
    return metrics


def check_fit(state: dict[str, Any], model: nn.Module, where: str, *, adapted: bool) -> None:
    """Check that saved weights fit a model.

    Args:
        state: Tensors by name; only shapes and dtypes are checked.
        model: The model to load them into.
        where: The checkpoint, for messages.
        adapted: Whether only weights that require gradients were saved.

    Raises:
        UserError: If any are missing, unknown or of the wrong shape; the message names the first.
    """
    own: dict[str, Any] = model.state_dict(keep_vars=True)
    own = {name: value for name, value in own.items() if value.requires_grad or not adapted}
    # tied weights have several names; one of them is enough
    loaded = {id(own[name]) for name in state.keys() & own.keys()}
    missing = [name for name, value in own.items() if name not in state and id(value) not in loaded]
    unknown = [name for name in state if name not in own]
    other = [
        f"{name}: {_kind(state[name])} in the checkpoint, {_kind(own[name])} in the model"
        for name in sorted(state.keys() & own.keys())
        if _kind(state[name]) != _kind(own[name])
    ]
    faults = [
        f"{len(names)} {what} ({listed(sorted(names), 2)})"
        for what, names in (("missing", missing), ("unknown", unknown), ("of the wrong shape", other))
        if names
    ]
    if faults:
        raise UserError(
            f"{where}: the weights belong to another model: {'; '.join(faults)}. Use the `--model.backbone` settings "
            "it was trained with."
        )


def _kind(value: Any) -> str:
    """The shape of a tensor; precisions may differ, but not floats from integers."""
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return f"{tuple(value.shape)}{'' if value.is_floating_point() else f' {value.dtype}'}"


def merged(backbone: nn.Module) -> nn.Module:
    """A copy of a model with its adapters merged into the weights, which are dequantised."""
    copied = copy.deepcopy(backbone)
    dequantize(copied)  # peft would add the adapter to the codes
    model: nn.Module = copied.merge_and_unload()  # type: ignore[operator]
    return model


def _has_base(backbone: nn.Module) -> bool:
    """Whether the adapters' base model is a folder or on the hub."""
    return all(config.base_model_name_or_path for config in backbone.peft_config.values())  # type: ignore[operator]


def exported_tokenizer(data: AnyData) -> PreTrainedTokenizerBase:
    """A copy of the tokenizer, whose chat template renders the text that is trained."""
    tokenizer = copy.deepcopy(data.tokenizer)
    tokenizer.model_max_length = data.context_length or data.max_length
    template = data.encoder.template
    if isinstance(data, TextDataModule):
        pass  # no chat template rendered the text, so the tokenizer keeps its own
    elif isinstance(template, Template):
        tokenizer.chat_template = jinja_of(template, bos=data.encoder.starts_documents)
    elif isinstance(tokenizer.chat_template, dict):  # several templates, by name
        exported = {"default": template.exported, "tool_use": template.exported_for_tools}
        tokenizer.chat_template |= {name: source for name, source in exported.items() if source}
    else:
        tokenizer.chat_template = template.exported
    return tokenizer


def _save_settings(folder: Path, data: AnyData, adapted: nn.Module | None) -> None:
    template = data.encoder.template
    # a trainer's own template (`--data.convention`) is known to others by the exported chat template only
    is_known = template.name in TEMPLATES and template == resolve_template(template.name, data.tokenizer)  # type: ignore[arg-type]
    name = template.name if is_known else "tokenizer"
    settings: dict[str, Any] = {"template": name, "end_token": template.end, "max_length": data.max_length}
    if adapted is not None:
        settings["base"] = identity_of(adapted)
        if tokens := adapted.__dict__.get("new_tokens"):
            settings["new_tokens"] = tokens
    write_json(folder / "lit_sft.json", settings)


def _is_written(name: str) -> bool:
    """Whether a file of this name is part of a model, adapter or tokenizer."""
    return name in WRITTEN or ".safetensors" in name
