"""Backbones: a Hugging Face causal language model, pretrained or random, trained in full or by LoRA."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from data_modules.digests import check_digests
from data_modules.model_names import check_model_name
from data_modules.reasons import reason_of
from lit_sft.attention import use_document_attention
from lit_sft.base_weights import base_identity, check_base
from lit_sft.files import read_json
from lit_sft.model_config import check_buildable, config_from
from lit_sft.pretrained import check_config, check_finite, check_vocabulary, first_line, listed, load_pretrained


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adaptation, as peft has it.

    Attributes:
        rank: Rank r of the update.
        alpha: The update is scaled by alpha/r (alpha/sqrt(r) with rslora).
        dropout: Dropout before the update.
        target_modules: `all-linear` (every linear layer but the head), or names of layers.
        modules_to_save: Layers trained in full beside the adapters, such as `embed_tokens`.
        rslora: Rank-stabilised scaling.
        dora: Weight-decomposed adaptation.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"
    modules_to_save: list[str] | None = None
    rslora: bool = False
    dora: bool = False


@dataclass(frozen=True)
class BackboneSettings:
    """Which model is trained, and how much of it.

    Attributes:
        pretrained: Name or folder of pretrained weights (safetensors).
        config: Instead of pretrained weights: the settings of a model with random ones, such as `{model_type: gpt2,
            n_layer: 4}`. Its vocabulary and end token come from the tokenizer.
        tokenizer: Name or folder. None: that of `pretrained`.
        tuning: Whether all weights are trained, or adapters only.
        lora: Settings of the adapters when tuning is `lora`.
        dropout: Dropout of the model itself, whatever its config says. None: its config's.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, a third more work.
        compile: Compile every layer by torch.compile, once for all lengths. The first step takes a minute longer; needs
            a C++ compiler on a CPU.
        trust_remote_code: Run model code that the hub repository brings along. Off unless you trust it.
    """

    pretrained: str | None = None
    config: dict[str, Any] | None = None
    tokenizer: str | None = None
    tuning: Literal["full", "lora"] = "full"
    lora: LoraSettings = field(default_factory=LoraSettings)
    dropout: float | None = 0.0
    gradient_checkpointing: bool = False
    compile: bool = False
    trust_remote_code: bool = False

    @property
    def tokenizer_name(self) -> str:
        return self.tokenizer or self.pretrained or ""


def build_backbone(settings: BackboneSettings, tokenizer: PreTrainedTokenizerBase) -> nn.Module:
    """The model to train, in float32, in training mode.

    Random weights (of the model or the adapters) depend on torch's initial seed alone, not on what was drawn before.

    Args:
        settings: What to build.
        tokenizer: Its vocabulary must fit the embedding.

    Returns:
        A PreTrainedModel, or a PeftModel around one; only what is to be trained requires gradients.

    Raises:
        ValueError: If it cannot be built from these settings.
    """
    config = load_config(settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch.initial_seed())
        if settings.pretrained is None:
            model = _random(config, tokenizer)
        else:
            model = load_pretrained(settings.pretrained, config, trust_remote_code=settings.trust_remote_code)
        _forget_padding(model)
        use_document_attention(model)
        check_vocabulary(model, tokenizer, settings.tokenizer_name)
        identity = base_identity(model, with_weights=settings.tuning == "lora")
        if settings.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
            # recomputing needs an input that requires gradients, which frozen embeddings do not give
            model.enable_input_require_grads()
        backbone: nn.Module = _with_adapters(model, settings.lora) if settings.tuning == "lora" else model
        if settings.compile:
            compile_layers(backbone)
    backbone.base_identity = identity  # type: ignore[assignment]
    return backbone.train()


def load_config(settings: BackboneSettings) -> PretrainedConfig:
    """The model's config, without its weights.

    Raises:
        ValueError: If neither or both of `pretrained` and `config` are given, it cannot be read, it has changed since
            it was exported, or is not of a causal language model.
    """
    if (settings.pretrained is None) == (settings.config is None):
        raise ValueError(
            "which model? Give either `--model.backbone.pretrained NAME_OR_FOLDER`, or `--model.backbone.config` with "
            "the settings of a model with random weights."
        )
    if settings.pretrained is not None:
        if Path(settings.pretrained).is_dir():
            check_digests(Path(settings.pretrained), weights=False)
        config = _pretrained_config(settings.pretrained, settings.trust_remote_code)
    else:
        config = config_from(settings.config or {})
    check_config(
        config,
        f"--model.backbone.pretrained {settings.pretrained}" if settings.pretrained else "--model.backbone.config",
    )
    return _with_dropout(config, settings.dropout)


def check_backbone(settings: BackboneSettings) -> None:
    """Check the settings of a model without building it.

    Raises:
        ValueError: If its config cannot be read, or is not one that a model can be built from.
    """
    config = load_config(settings)
    if settings.pretrained is None:
        check_buildable(config)


def context_length(settings: BackboneSettings) -> int | None:
    """Most tokens the model can read; None if it does not say."""
    length = getattr(load_config(settings), "max_position_embeddings", None)
    return None if length is None else int(length)


def causal_lm(backbone: nn.Module) -> PreTrainedModel:
    """The Hugging Face model inside, with any adapters in place."""
    return backbone.get_base_model() if hasattr(backbone, "peft_config") else backbone  # type: ignore[operator]


def is_adapted(backbone: nn.Module) -> bool:
    """Whether adapters are trained rather than all weights."""
    return hasattr(backbone, "peft_config")


def narrow_frozen_layers(backbone: nn.Module, dtype: torch.dtype) -> None:
    """Keep the frozen weights of linear layers in the precision in which autocast multiplies them.

    Half the memory and no cast in every pass, for the same numbers to the last bit: embeddings, norms and the head,
    which autocast does not always narrow, stay as they are.

    Args:
        backbone: With adapters.
        dtype: Of autocast.
    """
    from transformers.pytorch_utils import Conv1D

    head = causal_lm(backbone).get_output_embeddings()
    for module in backbone.modules():
        is_frozen = not any(parameter.requires_grad for parameter in module.parameters())
        if isinstance(module, (nn.Linear, Conv1D)) and is_frozen and module is not head:
            module.to(dtype)


def decoder_layers(backbone: nn.Module) -> list[nn.Module]:
    """The layers that a model is a stack of, with any adapters in place."""
    names = causal_lm(backbone)._no_split_modules or ()
    return [module for module in backbone.modules() if type(module).__name__ in names]


def compile_layers(backbone: nn.Module, **options: Any) -> None:
    """Compile each layer in place: they are alike, so it is done once, and the weights keep their names.

    Args:
        backbone: Whose layers; with any adapters in place.
        **options: For torch.compile.
    """
    for layer in decoder_layers(backbone):
        layer.compile(dynamic=True, **options)


def _pretrained_config(name: str, trust_remote_code: bool) -> PretrainedConfig:
    if (Path(name) / "adapter_config.json").exists() and not (Path(name) / "config.json").exists():
        raise ValueError(
            f"--model.backbone.pretrained {name}: holds an adapter, not a model; merge it first, for a run of this "
            "project by `python -m lit_sft export RUN --merge`."
        )
    try:
        check_model_name(name)
    except ValueError as error:
        raise ValueError(f"--model.backbone.pretrained {error}") from None
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
    except Exception as error:
        # damaged files end in any of a dozen exception types
        if "trust_remote_code" in str(error):
            raise ValueError(
                f"--model.backbone.pretrained {name}: this model brings code of its own, which is not run. Read it, "
                "and if you trust it add `--model.backbone.trust_remote_code true` (`evaluate` never runs such code)."
            ) from None
        kind = "folder holds no readable model config" if Path(name).is_dir() else "no such folder or hub model"
        raise ValueError(
            f"--model.backbone.pretrained {name}: {kind} ({reason_of(error)}). Check the path or the "
            "name and the connection."
        ) from error
    return config


def _with_dropout(config: PretrainedConfig, dropout: float | None) -> PretrainedConfig:
    """Set every dropout of the config. Source of the names: the configs of GPT-2, Qwen2, Llama and their kin."""
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout", "dropout"):
        if dropout is not None and hasattr(config, name):
            setattr(config, name, dropout)
    return config


def _random(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    config.vocab_size = max(len(tokenizer), 1 + max(tokenizer.get_vocab().values()))
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.pad_token_id = None
    check_buildable(config)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model


def _forget_padding(model: PreTrainedModel) -> None:
    """Padding is known by its kind, not its id.

    Where pad and end token share an id, the embedding of a model that knows its pad token would give the end token
    no gradient.
    """
    model.config.pad_token_id = None
    model.get_input_embeddings().padding_idx = None


def _with_adapters(model: PreTrainedModel, lora: LoraSettings) -> nn.Module:
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    _check_targets(model, lora.target_modules)
    saved = _with_tied_head(model, lora.modules_to_save)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        modules_to_save=saved,
        ensure_weight_tying=bool(saved and model.config.tie_word_embeddings),
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        # GPT-2's layers store their weights transposed
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    try:
        with _quiet_peft():
            adapted: nn.Module = get_peft_model(model, config)
    except ValueError as error:
        raise ValueError(f"--model.backbone.lora: {str(error).splitlines()[0]}") from None
    return adapted


def load_adapter(model: nn.Module, folder: Path) -> nn.Module:
    """Put an adapter from a folder into its base model.

    Raises:
        ValueError: If it is not in safetensors, does not fit, or has changed since it was exported.
    """
    from peft import PeftModel

    if not (folder / "adapter_model.safetensors").is_file():
        raise ValueError(f"{folder}: no adapter_model.safetensors; only safetensors are read.")
    check_digests(folder)
    written = read_json(folder / "lit_sft.json", advice="export the adapter again") or {}
    if isinstance(written.get("base"), dict):
        check_base(written["base"], base_identity(causal_lm(model), with_weights=True), str(folder))
    try:
        with _quiet_peft():
            warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)  # refused below, by name
            adapted: nn.Module = PeftModel.from_pretrained(model, str(folder))
        _check_adapter(adapted, load_file(folder / "adapter_model.safetensors"))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # damaged files end in any of a dozen exception types
        reason = next((line.strip() for line in str(error).splitlines() if "size mismatch" in line), first_line(error))
        raise ValueError(
            f"{folder}: this adapter does not fit the model ({reason}). Use the base model it was trained on."
        ) from error
    check_finite(adapted, str(folder))
    return adapted


def _check_adapter(adapted: nn.Module, saved: dict[str, torch.Tensor]) -> None:
    """Compare what has been loaded with the file: peft passes over weights that the model has no place for."""
    from peft import get_peft_model_state_dict

    trained = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    inside = adapted.state_dict() | trained  # embeddings may be saved along
    if missing := trained.keys() - saved.keys():
        raise ValueError(f"{len(missing)} of its weights are missing: {listed(missing)}")
    if unknown := saved.keys() - inside.keys():
        raise ValueError(f"the model has no place for {len(unknown)} of its weights: {listed(unknown)}")
    if other := [n for n, v in saved.items() if not torch.allclose(inside[n], v.to(inside[n]), 0, 0, equal_nan=True)]:
        raise ValueError(f"{len(other)} of its weights were not loaded as they are: {listed(other)}")


@contextmanager
def _quiet_peft() -> Iterator[None]:
    with warnings.catch_warnings():
        # it asks for a property that transformers has renamed
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        # and warns of a tie that _with_tied_head has seen to
        warnings.filterwarnings("ignore", "You have requested `ensure_weight_tying`", UserWarning)
        yield


def _with_tied_head(model: PreTrainedModel, names: list[str] | None) -> list[str] | None:
    """The layers to save: a tied head is trained with its embedding.

    peft sees to that for embeddings of names that it knows; for others (GPT-2's wte) the head has to be named.
    """
    from peft.utils.constants import EMBEDDING_LAYER_NAMES

    inner = {module: name.rpartition(".")[2] for name, module in model.named_modules()}
    embedding, head = inner[model.get_input_embeddings()], inner[model.get_output_embeddings()]
    is_known = embedding in EMBEDDING_LAYER_NAMES or not model.config.tie_word_embeddings
    return names if not names or is_known or embedding not in names else [*{*names, head}]


def _check_targets(model: PreTrainedModel, targets: str | list[str]) -> None:
    if targets == "all-linear":
        return
    from transformers.pytorch_utils import Conv1D

    layers = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))]
    known = sorted({name.rpartition(".")[2] for name in layers})
    for target in [targets] if isinstance(targets, str) else targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            raise ValueError(
                f"--model.backbone.lora.target_modules: this model has no linear layer '{target}'; it has "
                f"{', '.join(known)} (or use all-linear)."
            )
