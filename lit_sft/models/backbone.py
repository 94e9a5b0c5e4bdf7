"""Builds backbones: Hugging Face causal language models, pretrained or random, for full or LoRA training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from data_modules.digests import check_digests
from data_modules.encoding.model_names import check_model_name
from data_modules.encoding.new_tokens import GivenTokenizer
from data_modules.encoding.tokenizers import num_ids
from data_modules.errors import UserError
from data_modules.wording import reason_of
from lit_sft.models.adapters import LoraSettings, causal_lm, head_and_rows, with_adapters
from lit_sft.models.architectures import with_dropout
from lit_sft.models.attention import use_document_attention
from lit_sft.models.base_weights import base_identity
from lit_sft.models.continued_adapter import adapter_identity, adapter_settings, continue_adapter
from lit_sft.models.loss import check_logits
from lit_sft.models.model_config import check_buildable, config_from
from lit_sft.models.new_tokens import add_rows, ids_of_new_tokens, rows_to_train
from lit_sft.models.pretrained import check_config, check_vocabulary, load_pretrained
from lit_sft.models.quantization import Quantization, quantize


@dataclass(frozen=True)
class BackboneSettings:
    """Which model to train, and how much of it.

    Attributes:
        pretrained: Name or folder of pretrained weights (safetensors).
        config: Instead of pretrained weights, settings of a model with random weights, such as `{model_type: gpt2,
            n_layer: 4}`. The vocabulary and the end token come from the tokenizer.
        tokenizer: Name or folder. None: the tokenizer of `pretrained`.
        add_tokens: Words to add to the tokenizer as tokens, which are found wherever they occur in a text. The model
            gets rows of the embedding and the head for them, which are trained with LoRA too.
        add_special_tokens: The same for markers such as `<tool_call>`, which only a chat template writes.
        tuning: Whether to train all weights or only adapters.
        lora: Settings of the adapters if tuning is `lora`.
        adapter: Folder of a LoRA adapter of `pretrained` to continue, with its own rank, alpha and layers. None: new
            adapters.
        quantization: How to store the frozen weights of linear layers under LoRA: in 8 bits (`int8`) or 4 (`nf4`, as
            QLoRA). The embedding, norms and head keep their precision. None: not quantised.
        dropout: Dropout of the model, overriding its config. None: as in its config.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, a third more compute.
        compile: Compile every layer with torch.compile, once for all lengths. The first step takes a minute longer.
            On a CPU, this needs a C++ compiler.
        trust_remote_code: Run the model code of the hub repository. Enable it only if you trust the code.
        pad_vocab_to_multiple_of: Round up the vocabulary of a model with random weights, because the vocabulary head is
            faster on GPUs if its size is a multiple of 128: GPT-2's 50,257 entries become 50,304. The added entries are
            never generated.
    """

    pretrained: str | None = None
    config: dict[str, Any] | None = None
    tokenizer: str | None = None
    add_tokens: list[str] | None = None
    add_special_tokens: list[str] | None = None
    tuning: Literal["full", "lora"] = "full"
    lora: LoraSettings = field(default_factory=LoraSettings)
    adapter: str | None = None
    quantization: Quantization | None = None
    dropout: float | None = 0.0
    gradient_checkpointing: bool = False
    compile: bool = False
    trust_remote_code: bool = False
    pad_vocab_to_multiple_of: int | None = None

    @property
    def adapters(self) -> LoraSettings | None:
        """Settings of the adapters, those of a continued one included; None without adapters."""
        if self.tuning != "lora":
            return None
        return self.lora if self.adapter is None else adapter_settings(self.adapter, self.lora)

    @property
    def tokenizer_name(self) -> str:
        """Name or folder of the tokenizer; empty if none is known."""
        return self.tokenizer or self.pretrained or ""

    @property
    def new_tokens(self) -> list[str]:
        """All tokens that are added, in the order of their ids."""
        return [*(self.add_tokens or []), *(self.add_special_tokens or [])]

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer, with the tokens that are added."""
        return GivenTokenizer(self.tokenizer_name, self.add_tokens, self.add_special_tokens).load()


def build_backbone(settings: BackboneSettings, tokenizer: PreTrainedTokenizerBase) -> nn.Module:
    """Build the model to train, in float32 and in training mode.

    Random weights (of the model or the adapters) depend only on torch's initial seed, not on earlier random draws.

    Args:
        settings: What to build.
        tokenizer: With the tokens that are added. The others must fit the embedding.

    Returns:
        A PreTrainedModel, or a PeftModel around one. Only the weights to train require gradients.

    Raises:
        UserError: If no model can be built from these settings.
    """
    config, new_ids = load_config(settings), ids_of_new_tokens(tokenizer, settings.new_tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch.initial_seed())
        if settings.pretrained is None:
            config.vocab_size = vocabulary_size(settings, tokenizer)
            model = _random(config, tokenizer)
        else:
            model = load_pretrained(settings.pretrained, config, trust_remote_code=settings.trust_remote_code)
        _remove_pad_token(model)
        use_document_attention(model)
        check_logits(model)
        check_vocabulary(model, min(new_ids, default=num_ids(tokenizer)), settings.tokenizer_name)
        if new_ids and settings.pretrained is not None:
            add_rows(model, tokenizer, new_ids)
        identity, lora = base_identity(model, with_weights=settings.tuning == "lora"), settings.adapters
        identity |= adapter_identity(settings.adapter) if settings.adapter else {}
        if settings.quantization is not None and lora:
            quantize(model, settings.quantization, lora.modules_to_save or ())
            identity["quantization"] = settings.quantization
        if settings.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
            # recomputing needs an input with gradients, which frozen embeddings do not provide
            model.enable_input_require_grads()
        backbone = model if lora is None else _adapted(model, settings, lora, new_ids)
        if settings.compile:
            compile_layers(backbone)
    backbone.base_identity, backbone.new_tokens = identity, settings.new_tokens
    return backbone.train()


def load_config(settings: BackboneSettings) -> PretrainedConfig:
    """Load the model's config, without its weights.

    Raises:
        UserError: If not exactly one of `pretrained` and `config` is set, or the config cannot be read, has changed
            since it was exported, or is not for a causal language model.
    """
    if settings.pretrained is not None and settings.config is not None:
        raise UserError(
            "two models: `--model.backbone.pretrained` and `--model.backbone.config` are both set. To use the "
            "pretrained one, add `--model.backbone.config null`."
        )
    _check_padding(settings)
    _check_adapter(settings)
    _check_quantization(settings)
    if settings.pretrained is None and settings.config is None:
        raise UserError(
            "no model: set either `--model.backbone.pretrained NAME_OR_FOLDER`, or `--model.backbone.config` to the "
            "settings of a model with random weights."
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
    return config if settings.dropout is None else with_dropout(config, settings.dropout)


def vocabulary_size(settings: BackboneSettings, tokenizer: PreTrainedTokenizerBase) -> int:
    """Rows of the embedding of a model with random weights: every id of the tokenizer, then padding if it is set.

    Raises:
        UserError: If the config asks for another number.
    """
    multiple = settings.pad_vocab_to_multiple_of or 1
    size = -(-num_ids(tokenizer) // multiple) * multiple
    wanted = (settings.config or {}).get("vocab_size", size)
    if wanted != size:
        padded = f", rounded up to a multiple of {multiple}" if multiple > 1 else ""
        raise UserError(
            f"--model.backbone.config: vocab_size is {wanted}, but it follows from the tokenizer: {size:,} "
            f"entries{padded}. Leave it out; `--model.backbone.pad_vocab_to_multiple_of` rounds it up."
        )
    return size


def check_backbone(settings: BackboneSettings) -> None:
    """Check the settings of a model without building it.

    Raises:
        UserError: If the config cannot be read, or no model can be built from it.
    """
    config = load_config(settings)
    if settings.pretrained is None:
        check_buildable(config)


def _adapted(model: PreTrainedModel, settings: BackboneSettings, lora: LoraSettings, new_ids: list[int]) -> nn.Module:
    """The model with the adapters that the settings ask for."""
    rows = rows_to_train(model, new_ids, lora.modules_to_save or ())
    if settings.adapter is not None:
        return continue_adapter(model, settings.adapter, settings.lora, rows, settings.new_tokens)
    return with_adapters(model, lora, rows)


def _check_adapter(settings: BackboneSettings) -> None:
    if settings.adapter is None:
        return
    if settings.tuning != "lora":
        raise UserError(
            f"--model.backbone.adapter {settings.adapter}: only LoRA continues an adapter. Set "
            "`--model.backbone.tuning lora`; or merge it, and train the merged model."
        )
    if settings.pretrained is None:
        raise UserError(
            f"--model.backbone.adapter {settings.adapter}: set `--model.backbone.pretrained` to the model that it was "
            "trained on."
        )
    adapter_settings(settings.adapter, settings.lora)


def _check_quantization(settings: BackboneSettings) -> None:
    """Refuse settings that need the weights themselves."""
    if settings.quantization is None:
        return
    lora = settings.adapters
    for is_wrong, reason in (
        (lora is None, "quantised weights are frozen: set `--model.backbone.tuning lora`"),
        (settings.pretrained is None, "random weights are not quantised: set `--model.backbone.pretrained`"),
        (
            settings.compile,
            "not with `--model.backbone.compile`, which is not tested with quantised weights: leave one out",
        ),
        (lora is not None and lora.dora, "not with `dora`, which needs the weights: leave one out"),
        (
            lora is not None and lora.init not in (None, "gaussian"),
            f"not with `--model.backbone.lora.init {lora and lora.init}`, which needs the weights: leave one out",
        ),
    ):
        if is_wrong:
            raise UserError(f"--model.backbone.quantization {settings.quantization}: {reason}.")


def _check_padding(settings: BackboneSettings) -> None:
    multiple = settings.pad_vocab_to_multiple_of
    if multiple is not None and multiple < 1:
        raise UserError(f"--model.backbone.pad_vocab_to_multiple_of {multiple}: expected at least 1.")
    if multiple is not None and settings.pretrained is not None:
        raise UserError(
            f"--model.backbone.pad_vocab_to_multiple_of {multiple}: pretrained weights keep their vocabulary. Leave it "
            "out, or set `--model.backbone.config` for random weights."
        )


def context_length(settings: BackboneSettings) -> int | None:
    """Maximum number of tokens the model can read; None if unknown."""
    length = getattr(load_config(settings), "max_position_embeddings", None)
    return None if length is None else int(length)


def narrow_frozen_layers(backbone: nn.Module, dtype: torch.dtype) -> None:
    """Store the frozen weights of linear layers in the precision that autocast multiplies them in.

    This halves their memory and saves a cast per pass, with bitwise identical results. Embeddings, norms and the head
    keep their precision, because autocast does not always narrow them.

    Args:
        backbone: A model with adapters.
        dtype: The dtype of autocast.
    """
    from transformers.pytorch_utils import Conv1D

    head, _ = head_and_rows(causal_lm(backbone))
    for module in backbone.modules():
        is_frozen = not any(parameter.requires_grad for parameter in module.parameters())
        if isinstance(module, (nn.Linear, Conv1D)) and is_frozen and module is not head:
            module.to(dtype)


def decoder_layers(backbone: nn.Module) -> list[nn.Module]:
    """The decoder layers of a model, with any adapters in place."""
    names = causal_lm(backbone)._no_split_modules or ()
    return [module for module in backbone.modules() if type(module).__name__ in names]


def compile_layers(backbone: nn.Module, **options: Any) -> None:
    """Compile each layer in place. Identical layers compile only once, and weights keep their names.

    Args:
        backbone: The model, with any adapters in place.
        **options: Options for torch.compile.
    """
    for layer in decoder_layers(backbone):
        layer.compile(dynamic=True, **options)


def _pretrained_config(name: str, trust_remote_code: bool) -> PretrainedConfig:
    if (Path(name) / "adapter_config.json").exists() and not (Path(name) / "config.json").exists():
        raise UserError(
            f"--model.backbone.pretrained {name}: this is an adapter, not a model; merge it first. For a run of this "
            "project: `python -m lit_sft export RUN --merge`."
        )
    if (Path(name) / "model" / "config.json").is_file():
        raise UserError(f"--model.backbone.pretrained {name}: this is a run; its model is {Path(name) / 'model'}.")
    try:
        check_model_name(name)
    except ValueError as error:
        raise UserError(f"--model.backbone.pretrained {error}") from None
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
    except Exception as error:
        # damaged files raise any of a dozen exception types
        if "trust_remote_code" in str(error):
            raise UserError(
                f"--model.backbone.pretrained {name}: this model needs its own code, which is not run by default. Read "
                "the code; if you trust it, set `--model.backbone.trust_remote_code true` (`evaluate` never runs it)."
            ) from None
        kind = "no readable model config in this folder" if Path(name).is_dir() else "no such folder or hub model"
        raise UserError(
            f"--model.backbone.pretrained {name}: {kind} ({reason_of(error)}). Check the path or name, and the "
            "connection."
        ) from error
    return config


def _random(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.pad_token_id = None
    check_buildable(config)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model


def _remove_pad_token(model: PreTrainedModel) -> None:
    """Remove the pad token from the model: padding is identified by its kind, not its id.

    If the pad and end tokens share an id, an embedding with a padding index would give the end token no gradient.
    """
    model.config.pad_token_id = None
    model.get_input_embeddings().padding_idx = None
