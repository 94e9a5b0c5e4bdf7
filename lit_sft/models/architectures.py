"""Architectures whose attention ours can replace, and what the others have instead."""

from __future__ import annotations

from torch.nn.modules.dropout import _DropoutNd
from transformers import PretrainedConfig, PreTrainedModel

PLAIN = (
    "apertus", "arcee", "biogpt", "cohere", "cohere2", "ernie4_5", "exaone4", "gemma", "gemma3_text", "glm", "glm4",
    "gpt2", "gpt_bigcode", "gpt_neox", "granite", "granitemoe", "helium", "hunyuan_v1_dense", "llama", "ministral",
    "ministral3", "mistral", "mixtral", "olmo", "olmo2", "olmo3", "olmoe", "opt", "phi", "phi3",
    "qwen2", "qwen3", "qwen3_moe", "seed_oss", "smollm3", "starcoder2",
)  # fmt: skip
"""Model types with plain softmax attention in every layer, over all earlier tokens or a sliding window of them."""

SPECIAL = {
    "bloom": "its attention depends on distances (ALiBi)",
    "falcon_mamba": "its layers are recurrent",
    "gemma2": "it caps the scores of its attention",
    "gpt_neo": "its attention cannot be replaced",
    "gpt_oss": "its attention has sinks",
    "gptj": "its attention cannot be replaced",
    "granitemoehybrid": "some of its layers are recurrent",
    "lfm2": "some of its layers are convolutions",
    "mamba2": "its layers are recurrent",
    "mpt": "its attention depends on distances (ALiBi)",
    "nemotron": "its layers do not pass on where the documents are",
    "qwen2_moe": "its layers do not pass on their sliding window",
    "qwen3_5_text": "some of its layers are recurrent",
    "qwen3_next": "some of its layers are recurrent",
    "stablelm": "its layers do not pass on where the documents are",
}
"""Model types that are trained with one document per row, and why."""

_DROPOUT = (
    "activation_dropout", "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "dropout", "emb_pdrop",
    "embd_pdrop", "embed_dropout", "embedding_dropout", "hidden_dropout", "hidden_dropout_prob", "layerdrop",
    "resid_dropout", "resid_pdrop", "residual_dropout",
)  # fmt: skip
"""Settings of dropout in these models' configs."""


def special_attention(model: PreTrainedModel) -> str | None:
    """Why documents of this model need rows of their own; None if its attention is plain."""
    kind = str(model.config.model_type)
    if not type(model).__module__.startswith("transformers.models."):
        return "its code is not part of transformers"
    if kind in PLAIN and getattr(model.config, "attn_logit_softcapping", None) is None:
        return None
    return SPECIAL.get(kind, "it caps the scores of its attention" if kind in PLAIN else "it has not been checked")


def with_dropout(config: PretrainedConfig, dropout: float) -> PretrainedConfig:
    """Set every dropout in a config, in place. No whole layers are dropped."""
    for name in _DROPOUT:
        if hasattr(config, name):
            setattr(config, name, 0.0 if name == "layerdrop" else dropout)
    return config


def has_dropout(model: PreTrainedModel) -> bool:
    """Whether the model drops values in training: other ones in every document."""
    if any(getattr(model.config, name, 0.0) for name in _DROPOUT):  # some are applied by functions, not by modules
        return True
    return any(isinstance(module, _DropoutNd) and module.p > 0 for module in model.modules())
