"""Hyper-parameters and tensors of each supported architecture, as GGUF files have them.

Source: the GGUF specification (github.com/ggml-org/ggml, docs/gguf.md) and the names of the `gguf` package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFWriter, RopeScalingType, get_tensor_name_map
from torch import Tensor
from transformers import PretrainedConfig

from data_modules.errors import UserError
from data_modules.wording import listed

Weights = Callable[[Tensor, PretrainedConfig], Tensor]


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one kind of model is written.

    Attributes:
        arch: llama.cpp's name.
        expected: Settings that llama.cpp takes for granted, with their values; absent ones pass.
        write: Writes the hyper-parameters.
        converted: How weights are rearranged, by the name of their layer.
    """

    arch: MODEL_ARCH
    expected: dict[str, Any]
    write: Callable[[GGUFWriter, PretrainedConfig], None]
    converted: Mapping[str, Weights]

    @property
    def name(self) -> str:
        """llama.cpp's name as a string."""
        return str(MODEL_ARCH_NAMES[self.arch])


@dataclass(frozen=True, slots=True)
class NamedTensor:
    """A tensor of a file.

    Attributes:
        name: Its name in the file.
        shape: Its shape, (rows, columns) or (columns,).
        read: Gives its values in float32, computed when called.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor]


def architecture_of(config: PretrainedConfig) -> Architecture:
    """How a model is written.

    Raises:
        UserError: If its kind is not supported, or llama.cpp does not know one of its settings.
    """
    found = ARCHITECTURES.get(config.model_type)
    if found is None:
        raise UserError(
            f"--gguf: models of type {config.model_type} are not supported, only {', '.join(ARCHITECTURES)}."
        )
    odd = [f"{n} {getattr(config, n)}" for n, value in found.expected.items() if getattr(config, n, value) != value]
    layers = {*(getattr(config, "layer_types", None) or [])} - {"full_attention"}
    if odd or layers:
        raise UserError(
            f"--gguf: llama.cpp has no {config.model_type} models with {listed([*odd, *sorted(layers)])}. "
            "Serve the folder of `export` with transformers or vLLM."
        )
    return found


def tensors_of(model: Any, found: Architecture, num_tokens: int) -> Iterator[NamedTensor]:
    """All tensors of a model, in the order of its layers.

    Args:
        model: A causal language model.
        found: Its architecture.
        num_tokens: Rows of the embedding and the head that are written. Others belong to no token.
    """
    config: PretrainedConfig = model.config
    names = get_tensor_name_map(found.arch, config.num_hidden_layers)
    head, embedding = (layer.weight for layer in (model.get_output_embeddings(), model.get_input_embeddings()))
    if factors := _rope_factors(model, config):
        yield factors
    for name, weight in model.named_parameters():  # tied weights only once
        written = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if written is None:
            raise UserError(f"--gguf: llama.cpp has no place for {name} in models of type {config.model_type}.")
        convert = found.converted.get(name.rpartition(".")[0].rpartition(".")[2])
        if weight is embedding or weight is head:
            yield _named(written, weight.detach()[:num_tokens], None, config)
        else:
            yield _named(written, weight.detach(), convert, config)


def _named(name: str, weight: Tensor, convert: Weights | None, config: PretrainedConfig) -> NamedTensor:
    # a transposition changes the shape, and views cost nothing
    shape = convert(weight, config).shape if convert is _transposed else weight.shape
    return NamedTensor(name, tuple(shape), lambda: (convert(weight, config) if convert else weight).float())


def _transposed(weight: Tensor, config: PretrainedConfig) -> Tensor:
    """GPT-2's layers store their weights as (inputs, outputs)."""
    return weight.T if weight.dim() == 2 else weight


def _paired(num_heads: str) -> Weights:
    """Reorder the rows of each head for rotary embeddings of neighbours (0, 1), as llama.cpp's Llama has them.

    transformers rotates row i of a head with row i + half.

    Args:
        num_heads: Name of the setting with the number of heads.
    """

    def _convert(weight: Tensor, config: PretrainedConfig) -> Tensor:
        heads = weight.reshape(getattr(config, num_heads), 2, -1, *weight.shape[1:])
        return heads.transpose(1, 2).reshape(weight.shape)

    return _convert


def _write_gpt2(writer: GGUFWriter, config: PretrainedConfig) -> None:
    _write_sizes(writer, config, config.n_inner or 4 * config.n_embd)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def _write_rotary(writer: GGUFWriter, config: PretrainedConfig) -> None:
    _write_sizes(writer, config, config.intermediate_size)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    kind = config.rope_parameters["rope_type"]
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(config.rope_parameters["factor"]))
    elif kind != "default" and not (kind == "llama3" and config.model_type == "llama"):
        raise UserError(
            f"--gguf: rotary embeddings of type {kind} are not supported for models of type {config.model_type}, only "
            "default, linear, and llama3 for llama."
        )


def _write_sizes(writer: GGUFWriter, config: PretrainedConfig, inner: int) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(config.num_attention_heads)


def _rope_factors(model: Any, config: PretrainedConfig) -> NamedTensor | None:
    """What llama.cpp divides the frequencies of Llama 3's rotary embeddings by."""
    parameters = getattr(config, "rope_parameters", None) or {}
    if parameters.get("rope_type") != "llama3":
        return None
    scaled = model.get_decoder().rotary_emb.inv_freq.double()
    exponents = torch.arange(len(scaled), dtype=torch.float64, device=scaled.device) / len(scaled)
    factors = parameters["rope_theta"] ** -exponents / scaled
    return NamedTensor("rope_freqs.weight", tuple(factors.shape), factors.float)


_SILU = {"hidden_act": "silu", "partial_rotary_factor": 1.0}
_PAIRED = {"q_proj": _paired("num_attention_heads"), "k_proj": _paired("num_key_value_heads")}
_TRANSPOSED = dict.fromkeys(("c_attn", "c_proj", "c_fc"), _transposed)

ARCHITECTURES = {
    "gpt2": Architecture(
        MODEL_ARCH.GPT2,
        {
            "activation_function": "gelu_new", "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
        },
        _write_gpt2,
        _TRANSPOSED,
    ),
    "llama": Architecture(MODEL_ARCH.LLAMA, _SILU, _write_rotary, _PAIRED),
    "qwen2": Architecture(MODEL_ARCH.QWEN2, _SILU, _write_rotary, {}),
    "qwen3": Architecture(MODEL_ARCH.QWEN3, _SILU | {"attention_bias": False}, _write_rotary, {}),
}  # fmt: skip
"""By transformers' `model_type`."""
