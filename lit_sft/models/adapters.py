"""LoRA adapters: adds them to a model, loads them, and checks that they fit."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from data_modules.digests import check_digests
from data_modules.errors import UserError
from data_modules.wording import did_you_mean, listed
from lit_sft.files import read_json
from lit_sft.models.base_weights import base_identity, check_base
from lit_sft.models.lora_starts import keep_first_factors
from lit_sft.models.pretrained import check_finite, first_line

if TYPE_CHECKING:
    from peft import LoraConfig

    from lit_sft.models.token_rows import TokenRows

WEIGHTS = "adapter_model.safetensors"
"""The file that holds the weights of an adapter."""


@dataclass(frozen=True)
class LoraSettings:
    """Settings of low-rank adaptation, as in peft.

    Attributes:
        rank: Rank r of the update.
        alpha: The update is scaled by alpha/r (alpha/sqrt(r) with rslora).
        dropout: Dropout before the update.
        target_modules: `all-linear` (every linear layer but the head), or names of layers.
        modules_to_save: Layers to train in full along with the adapters, such as `embed_tokens`.
        rslora: Rank-stabilised scaling.
        dora: Weight-decomposed adaptation.
        init: How new adapters start, by peft's names. `pissa` takes the largest singular values of the weights out of
            the base (`pissa_niter_16` approximately, and faster), `olora` the first columns of their QR decomposition.
            None: one matrix is random, the other zero.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"
    modules_to_save: list[str] | None = None
    rslora: bool = False
    dora: bool = False
    init: Literal["gaussian", "orthogonal", "olora", "pissa", "pissa_niter_16"] | None = None

    def __post_init__(self) -> None:
        for name, is_right, expected in (
            ("rank", self.rank >= 1, "1 or more"),
            ("alpha", self.alpha > 0, "more than 0"),
            ("dropout", 0 <= self.dropout < 1, "at least 0 and below 1"),
        ):
            if not is_right:
                raise UserError(f"--model.backbone.lora.{name} {getattr(self, name)}: expected {expected}.")
        if self.dora and self.changes_base:
            raise UserError(
                f"--model.backbone.lora.init {self.init} with `dora`: DoRA needs the whole base weights. Leave one out."
            )
        if self.init == "orthogonal" and self.rank % 2:
            raise UserError(f"--model.backbone.lora.rank {self.rank}: `init: orthogonal` needs an even rank.")

    @property
    def changes_base(self) -> bool:
        """Whether new adapters take their first weights out of the base."""
        return self.init in ("olora", "pissa", "pissa_niter_16")


def causal_lm(backbone: nn.Module) -> PreTrainedModel:
    """The Hugging Face model inside the backbone, with any adapters in place."""
    return backbone.get_base_model() if hasattr(backbone, "peft_config") else backbone  # type: ignore[operator]


def is_adapted(backbone: nn.Module) -> bool:
    """Whether the backbone has adapters."""
    return hasattr(backbone, "peft_config")


def head_and_rows(model: PreTrainedModel) -> tuple[Any, TokenRows | None]:
    """The vocabulary head, and the rows of it that are trained beside adapters, if any."""
    head = model.get_output_embeddings()
    if not hasattr(head, "token_adapter"):
        return head, None
    from lit_sft.models.token_rows import TokenRows

    rows = head.token_adapter
    return (rows.base_layer, rows) if isinstance(rows, TokenRows) else (head, None)


def with_adapters(model: PreTrainedModel, lora: LoraSettings, rows: dict[str, list[int]] | None = None) -> nn.Module:
    """Add new adapters to a model and freeze everything else.

    Args:
        model: Without adapters.
        lora: Settings of the adapters.
        rows: Rows to train of the embedding and the head: for each layer, the ids of their tokens. None: none.

    Raises:
        UserError: If the settings name layers that the model does not have.
    """
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    from lit_sft.models.token_rows import use_own_rows

    _check_targets(model, lora.target_modules)
    _check_saved(model, lora.modules_to_save or [])
    saved = with_tied_head(model, lora.modules_to_save)
    # GPT-2's layers store their weights transposed
    is_transposed = any(isinstance(module, Conv1D) for module in model.modules())
    if lora.init == "olora" and is_transposed:
        raise UserError(
            "--model.backbone.lora.init olora: peft decomposes only the weights of linear layers, and this model has "
            "Conv1D. Use pissa."
        )
    config = LoraConfig(
        task_type="CAUSAL_LM",
        init_lora_weights=lora.init or True,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        modules_to_save=saved,
        ensure_weight_tying=bool(saved and model.config.tie_word_embeddings),
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        trainable_token_indices=rows,
        fan_in_fan_out=is_transposed,
    )
    try:
        with _quiet_peft():
            adapted: nn.Module = get_peft_model(model, config)
    except ValueError as error:
        raise UserError(f"--model.backbone.lora: {str(error).splitlines()[0]}") from None
    use_own_rows(adapted)
    if lora.changes_base:
        keep_first_factors(adapted)
    return adapted


def load_adapter(model: nn.Module, folder: Path, training: LoraConfig | None = None) -> nn.Module:
    """Load an adapter from a folder into its base model.

    Args:
        model: The base model.
        folder: The adapter.
        training: Its settings, to train it. None: it is frozen, with the settings in the folder.

    Raises:
        UserError: If it is not in safetensors, does not fit, or has changed since it was exported.
    """
    from peft import PeftModel

    from lit_sft.models.token_rows import use_own_rows

    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder}: no {WEIGHTS}; only safetensors files can be loaded.")
    check_digests(folder)
    written = read_json(folder / "lit_sft.json", advice="export the adapter again") or {}
    if isinstance(written.get("base"), dict):
        check_base(written["base"], base_identity(causal_lm(model), with_weights=True), str(folder))
    try:
        with _quiet_peft():
            warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)  # checked below, by name
            adapted: nn.Module = PeftModel.from_pretrained(
                model, str(folder), is_trainable=training is not None, config=training
            )
        _check_adapter(adapted, load_file(folder / WEIGHTS))
        use_own_rows(adapted)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # damaged files raise any of a dozen exception types
        reason = next((line.strip() for line in str(error).splitlines() if "size mismatch" in line), first_line(error))
        raise UserError(
            f"{folder}: this adapter does not fit the model ({reason}). Use the base model it was trained on."
        ) from error
    check_finite(adapted, str(folder))
    return adapted


def _check_adapter(adapted: nn.Module, saved: dict[str, torch.Tensor]) -> None:
    """Compare the loaded weights with the file: peft silently skips weights that the model has no place for."""
    from peft import get_peft_model_state_dict

    trained = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    inside = adapted.state_dict() | trained  # embeddings may be saved too
    if missing := trained.keys() - saved.keys():
        raise UserError(
            f"{len(missing)} of its weights {'is' if len(missing) == 1 else 'are'} missing: {listed(sorted(missing))}"
        )
    if unknown := saved.keys() - inside.keys():
        raise UserError(f"the model has no place for {len(unknown)} of its weights: {listed(sorted(unknown))}")
    if other := [n for n, v in saved.items() if not torch.allclose(inside[n], v.to(inside[n]), 0, 0, equal_nan=True)]:
        raise UserError(
            f"{len(other)} of its weights {'was' if len(other) == 1 else 'were'} changed by loading: {listed(other)}"
        )


@contextmanager
def _quiet_peft() -> Iterator[None]:
    with warnings.catch_warnings():
        # peft uses a property that transformers has renamed
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        # and warns about tied weights, which with_tied_head takes care of
        warnings.filterwarnings("ignore", "You have requested `ensure_weight_tying`", UserWarning)
        yield


def with_tied_head(model: PreTrainedModel, names: list[str] | None) -> list[str] | None:
    """The layers to save: a tied head is trained together with its embedding.

    peft does this for embeddings whose names it knows; for others (GPT-2's wte) the head must be named.
    """
    from peft.utils.constants import EMBEDDING_LAYER_NAMES

    inner = {module: name.rpartition(".")[2] for name, module in model.named_modules()}
    embedding, head = inner[model.get_input_embeddings()], inner[model.get_output_embeddings()]
    is_known = embedding in EMBEDDING_LAYER_NAMES or not model.config.tie_word_embeddings
    if not names:
        return None
    # a copy: peft writes the embedding in place of a tied head
    return [*names] if is_known or embedding not in names else [*{*names, head}]


def _check_targets(model: PreTrainedModel, targets: str | list[str]) -> None:
    if targets == "all-linear":
        if _has_experts(model):
            raise UserError(
                f"--model.backbone.lora.target_modules all-linear: the experts of {model.config.model_type} are not "
                "linear layers, and adapters for them are not supported. Name the layers to adapt, such as "
                "`[q_proj, k_proj, v_proj, o_proj]`, or train all weights."
            )
        return
    from transformers.pytorch_utils import Conv1D

    layers = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))]
    known = sorted({name.rpartition(".")[2] for name in layers})
    for target in [targets] if isinstance(targets, str) else targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            raise UserError(
                f"--model.backbone.lora.target_modules: this model has no linear layer '{target}'; it has "
                f"{', '.join(known)} (or use all-linear)."
            )


def _has_experts(model: PreTrainedModel) -> bool:
    """Whether the weights of several experts are one tensor."""
    modules = (module for module in model.modules() if not isinstance(module, nn.Conv1d))
    return any(parameter.dim() == 3 for module in modules for parameter in module.parameters(recurse=False))


def _check_saved(model: PreTrainedModel, names: list[str]) -> None:
    """Refuse unknown names: peft would train nothing for them, without a word."""
    modules = [name for name, _ in model.named_modules() if name]
    for name in names:
        if not any(module == name or module.endswith(f".{name}") for module in modules):
            known = {module.rpartition(".")[2] for module in modules if not module.rpartition(".")[2].isdigit()}
            advice = did_you_mean(name, known) or f"it has {', '.join(sorted(known))}."
            raise UserError(f"--model.backbone.lora.modules_to_save: this model has no layer '{name}'; {advice}")
