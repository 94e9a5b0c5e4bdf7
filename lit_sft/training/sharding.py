"""Shards weights over processes (FSDP2), and computes losses while they are gathered."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

from lightning.pytorch.strategies import (
    DDPStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    Strategy,
)
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from data_modules.batching.batch import Batch
from data_modules.errors import UserError
from lit_sft.models.backbone import BackboneSettings, decoder_layers

Scoring = Callable[[nn.Module, Batch], Any]


def check_strategy(strategy: Strategy, backbone: BackboneSettings) -> None:
    """Reject strategies that gather the head's weight only inside its own forward pass, or cannot hold this model.

    Raises:
        UserError: If it is FSDP1 or DeepSpeed ZeRO 3; or splits weights that adapters start from or train by rows.
    """
    if isinstance(strategy, FSDPStrategy) or getattr(strategy, "zero_stage_3", False):
        raise UserError(
            f"--trainer.strategy: {type(strategy).__name__} shards the weights in a way that does not allow computing "
            "the loss on supervised tokens only. Use FSDP2 instead: `--config configs/overlays/fsdp2.yaml`."
        )
    if backbone.quantization is not None and not isinstance(strategy, (SingleDeviceStrategy, DDPStrategy)):
        raise UserError(
            f"--trainer.strategy: {type(strategy).__name__} with `--model.backbone.quantization "
            f"{backbone.quantization}`: only one device and DDP are supported. Leave one of them out."
        )
    trains_rows = backbone.tuning == "lora" and bool(backbone.new_tokens)
    if trains_rows and not isinstance(strategy, (SingleDeviceStrategy, DDPStrategy)):
        raise UserError(
            f"--trainer.strategy: {type(strategy).__name__} with LoRA and new tokens, whose rows of the embedding are "
            "trained alone: only one device and DDP are supported. Use `--config configs/overlays/ddp.yaml`."
        )
    if isinstance(strategy, ModelParallelStrategy) and backbone.tuning == "lora" and backbone.lora.changes_base:
        raise UserError(
            f"--trainer.strategy: {type(strategy).__name__} shards the weights, and `--model.backbone.lora.init "
            f"{backbone.lora.init}` needs them whole. Leave it out, or use DDP."
        )


def check_passes(strategy: Strategy, num_micro_batches: int) -> None:
    """Reject several backward passes per batch under a strategy that allows one.

    Raises:
        UserError: If there are several.
    """
    if num_micro_batches > 1 and not isinstance(strategy, SingleDeviceStrategy | DDPStrategy | ModelParallelStrategy):
        raise UserError(
            f"a batch of {num_micro_batches} micro-batches: this strategy allows one backward pass per batch. "
            "Set `--data.token_budget` above the largest batch, or lower `--data.batch_size`."
        )


def shard(backbone: nn.Module, strategy: ModelParallelStrategy, scorings: list[Scoring]) -> None:
    """Shard a backbone layer by layer; embedding, last norm and head form the root's group.

    Args:
        backbone: With or without adapters; changed in place.
        strategy: The trainer's strategy; the weights are sharded over all of its processes.
        scorings: Functions of backbone and batch that need the full weights. They use the head's weight outside its
            own module, so they must count as the root's forward pass.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # not Lightning's mesh, which by default uses all devices of a machine for tensor parallelism: its data dimension
    # has size 1, and gradients would not be summed at all
    mesh = init_device_mesh(strategy.root_device.type, (strategy.world_size,))
    for layer in decoder_layers(backbone):
        fully_shard(layer, mesh=mesh)
    fully_shard(backbone, mesh=mesh)
    for scoring in scorings:
        setattr(backbone, scoring.__name__, MethodType(scoring, backbone))
        register_fsdp_forward_method(backbone, scoring.__name__)


def score(scoring: Scoring, backbone: nn.Module, batch: Batch) -> Any:
    """Call a scoring function on a backbone, sharded or not."""
    method = getattr(backbone, scoring.__name__, None)
    return scoring(backbone, batch) if method is None else method(batch)
