"""lit_sft as a contestant: Lightning's Trainer, LitCausalLM and SFTDataModule, set up as by `python -m lit_sft fit`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).parents[2])

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from benchmarks.peers.protocol import LORA_RANK, Settings, Turns
from benchmarks.rows import template_of
from data_modules.batching.batch import Batch
from data_modules.batching.prefix_tree import stretches_of
from data_modules.encoding.example_store import ExampleStore, record_batch, write_batches
from data_modules.sft_data_module import SFTDataModule
from lit_sft.models.adapters import LoraSettings, causal_lm
from lit_sft.models.backbone import BackboneSettings
from lit_sft.training.module import LitCausalLM
from lit_sft.training.optimization import OptimizerSettings


def main() -> None:
    """Train one step per turn."""
    turns = Turns()
    settings = turns.settings
    warnings.filterwarnings("ignore", "answers end with")  # a warning about learning to stop, irrelevant here
    precision = "bf16-mixed" if settings.precision == "bf16" else "32-true"
    trainer = Trainer(
        accelerator="gpu" if settings.device == "cuda" else "cpu",
        devices=1,
        precision=precision,  # type: ignore[arg-type]
        max_steps=settings.steps,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=settings.output,
        callbacks=[TurnByTurn(turns)],
    )
    chosen = {"precision": precision, "packing": _packs(settings), "share_prefixes": _shares(settings)}
    turns.ready(precision=settings.precision, settings=chosen)
    trainer.fit(_module(settings), datamodule=_data(settings))


class TurnByTurn(Callback):
    """Times a step from the end of the previous one: batch, forward, backward, optimiser and the trainer's overhead."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.computed = 0
        """Tokens that the model has read in this step."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count what the model reads from now on, and wait for the first turn."""
        embedding = causal_lm(pl_module.backbone).get_input_embeddings()  # type: ignore[arg-type]
        embedding.register_forward_pre_hook(self._count)
        self.turns.wait()

    def _count(self, module: Any, inputs: tuple[Tensor, ...]) -> None:
        self.computed += inputs[0].numel()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report the step, and wait for the next turn unless it was the last."""
        micro_batches = batch if isinstance(batch, list | tuple) else [batch]
        if trainer.global_step == 1:  # the warm-up, which is not timed
            check_computed(self.computed, micro_batches, shares=_shares(self.turns.settings))
        self.turns.finish(
            loss=outputs["nats"] / outputs["weight"],
            real=sum(sum(micro_batch.lengths) for micro_batch in micro_batches),
            processed=self.computed,
            supervised=sum(len(micro_batch.targets) for micro_batch in micro_batches),
        )
        self.computed = 0
        if trainer.global_step < trainer.max_steps:
            self.turns.wait()


def check_computed(computed: int, micro_batches: Sequence[Batch], *, shares: bool) -> None:
    """Check that a step has computed what rows share as often as it should: once, or for each row.

    Args:
        computed: Tokens that the model has read.
        micro_batches: The step.
        shares: Whether what rows share is computed once.

    Raises:
        RuntimeError: If not, since another variant would be measured.
    """
    expected = sum(_tokens(batch, shares=shares) for batch in micro_batches)
    if computed != expected:
        raise RuntimeError(f"the model computed {computed} tokens of the first step; expected {expected}")


def _tokens(batch: Batch, *, shares: bool) -> int:
    """The tokens that a model should read, counted from the rows themselves."""
    if not shares:
        return batch.input_ids.numel()
    rows = batch.input_ids.flatten().split(batch.lengths)
    return sum(map(len, stretches_of([row.cpu().numpy().astype("int32") for row in rows])))


def _module(settings: Settings) -> LitCausalLM:
    backbone = BackboneSettings(
        pretrained=settings.model,
        tuning=settings.tuning,  # type: ignore[arg-type]
        lora=LoraSettings(rank=LORA_RANK, alpha=2 * LORA_RANK),
    )
    return LitCausalLM(backbone, OptimizerSettings(lr=settings.lr, schedule="constant"))


def _packs(settings: Settings) -> bool:
    return settings.variant != "padded"


def _shares(settings: Settings) -> bool:
    return settings.variant not in ("padded", "unshared")


def _data(settings: Settings) -> SFTDataModule:
    """Serves the rows in the given order, instead of encoding and shuffling records."""
    data = SFTDataModule(
        tokenizer=settings.tokenizer,
        template=template_of(settings.tokenizer),
        batch_size=settings.batch_size,
        shuffle=False,
        packing=_packs(settings),
        share_prefixes=_shares(settings),
    )
    store, path = ExampleStore(Path(settings.store)), Path(settings.output) / "order.arrow"
    write_batches(path, [record_batch([store[index] for index in settings.order])])
    data.prepare_data = lambda: None  # type: ignore[method-assign]
    data.stores = {"train": ExampleStore(path)}
    return data


if __name__ == "__main__":
    main()
