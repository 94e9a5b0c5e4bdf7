"""The LightningModule, for full fine-tuning and LoRA, on conversations and plain text."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any, Self

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.strategies import ModelParallelStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import GradClipAlgorithmType
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedTokenizerBase

from data_modules.batching.batch import Batch
from data_modules.encoding.example import Example
from data_modules.encoding.tokenizers import token_sizes
from data_modules.errors import UserError
from lit_sft.metrics.segments import RecordSums, curves, gather_records, scalars
from lit_sft.metrics.split import SplitMetrics
from lit_sft.models.adapters import causal_lm, is_adapted
from lit_sft.models.answer_rows import answer_row
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.generation import Generated, GenerationSettings, generate
from lit_sft.models.loss import reference_nll, token_nll
from lit_sft.models.objectives import ObjectiveSettings, objective_of
from lit_sft.models.reference import keep_reference
from lit_sft.models.saving import load_weights, read_checkpoint
from lit_sft.training.checkpoint_hooks import add_metrics, add_origin, add_progress, check_weights
from lit_sft.training.data import TrainingData
from lit_sft.training.end_token import warn_of_frozen_end
from lit_sft.training.ending import keep_stopped
from lit_sft.training.finite_guard import FiniteGuard, guards_of
from lit_sft.training.hyper_parameters import plain_settings, settings_from
from lit_sft.training.objective_checks import check_objective, check_pairs
from lit_sft.training.optimization import (
    OptimizerSettings,
    build_optimizer,
    build_schedule,
    check_optimizer,
    options_of,
    restore_options,
)
from lit_sft.training.precision import narrow_where_lossless, warn_of_lost_updates
from lit_sft.training.refused_callbacks import check_callbacks
from lit_sft.training.resuming import check_identity, run_identity, seed_batch
from lit_sft.training.row_layout import row_layout
from lit_sft.training.sharding import check_passes, check_strategy, score, shard
from lit_sft.training.steps import total_steps


class LitCausalLM(LightningModule):
    """Trains a causal language model on the tokens that the data's mask selects.

    The loss is summed over supervised tokens and divided by their number in the whole optimiser step, over all
    micro-batches and ranks. Validation measures every segment and mask, whichever mask is trained on.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from data_modules.sft_data_module import SFTDataModule
        >>> tiny = {"model_type": "gpt2", "n_layer": 1, "n_embd": 32, "n_head": 2, "n_positions": 256}
        >>> model = LitCausalLM(BackboneSettings(config=tiny, tokenizer="examples/tokenizer"))
        >>> data = SFTDataModule("examples/world/train.json", tokenizer="examples/tokenizer", template="chatml")
        >>> quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        >>> Trainer(max_steps=2, limit_val_batches=2, enable_checkpointing=False, **quiet).fit(model, datamodule=data)
        >>> model.metrics["val"]["loss"] > 0
        True

    Args:
        backbone: Which model, and how much of it to train.
        optimizer: The optimiser and its schedule.
        generation: How `test` and `predict` generate answers.
        objective: What training minimises.
    """

    backbone: nn.Module

    def __init__(
        self,
        backbone: BackboneSettings,
        optimizer: OptimizerSettings = OptimizerSettings(),
        generation: GenerationSettings = GenerationSettings(),
        objective: ObjectiveSettings = ObjectiveSettings(),
    ) -> None:
        super().__init__()
        self.backbone_settings, self.optimizer_settings, self.generation_settings = backbone, optimizer, generation
        self.objective_settings, self.objective = objective, objective_of(objective)
        self.trains_on_pairs = objective.is_preference
        self.save_hyperparameters(plain_settings(backbone, optimizer, generation, objective), logger=False)
        self._seed = torch.initial_seed()
        """Seed of the backbone's random weights."""
        self.allow_changes = False
        """Whether to resume from a checkpoint with different settings or data."""
        self.checkpoint: Path | None = None
        """The checkpoint to load. A sharded model is checked against it first: its strategy loads only what fits."""
        self.metrics: dict[str, dict[str, float]] = {}
        """The newest metrics of each split, such as `metrics["val"]["nll/answer"]`."""
        self.metrics_before: dict[str, float] = {}
        """The validation metrics before the first step."""
        self.records: dict[str, RecordSums] = {}
        """What each record of the test split contributed to the metrics, by origin."""

    @property
    def data(self) -> TrainingData:
        """The data module of the run."""
        data: TrainingData | None = getattr(self.trainer, "datamodule", None)
        if data is None:
            raise UserError(
                "LitCausalLM needs a data module, such as SFTDataModule: call `trainer.fit(model, datamodule=data)`."
            )
        return data

    def configure_model(self) -> None:
        """Build the backbone and the metrics, once."""
        if not hasattr(self, "split_metrics"):
            self._configure()
        if self.objective_settings.needs_reference and self.trainer.state.fn == TrainerFn.FITTING:
            keep_reference(self.backbone)

    def _configure(self) -> None:
        check_strategy(self.trainer.strategy, self.backbone_settings)
        check_objective(self.objective_settings, self.backbone_settings, self.trainer.strategy)
        check_pairs(self.objective_settings, self.data, self.trainer)
        tokenizer, end_token_id = self.data.tokenizer, self.data.end_token_id
        if not hasattr(self, "backbone"):
            self._build(tokenizer)
        narrow_where_lossless(self.backbone, self.backbone_settings, self.trainer)
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            shard(self.backbone, self.trainer.strategy, [self.objective, token_nll, reference_nll])
        self.packs, self.shares_prefixes = row_layout(
            self.backbone, self.data, self.trainer, is_noisy=self.objective_settings.neftune_alpha > 0
        )
        self.strict_loading = not is_adapted(self.backbone)  # adapters are saved without the frozen weights
        rows = causal_lm(self.backbone).get_input_embeddings().weight.shape[0]
        sizes = torch.from_numpy(token_sizes(tokenizer, rows, end_token_id))
        names = [source.name for source in self.data.mix]
        given = (sizes, end_token_id, names, self.objective_settings.preference_loss)
        self.split_metrics = nn.ModuleDict({s: SplitMetrics(*given, by_record=s == "test") for s in ("val", "test")})
        if isinstance(self.trainer.strategy, ModelParallelStrategy) and self.checkpoint is not None:
            self._check_weights(read_checkpoint(self.checkpoint, map_location="meta", mmap=True), self.checkpoint)
        warn_of_frozen_end(self.backbone, self.backbone_settings, self.data.encoder.template.end, end_token_id)

    def _build(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._seed = torch.initial_seed()
        with torch.device("cpu"):  # random weights are then the same on every machine
            self.backbone = build_backbone(self.backbone_settings, tokenizer)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path,
        map_location: torch.device | str | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        **settings: Any,
    ) -> Self:
        """Load a model with the settings and weights of a checkpoint, to generate, test or continue training.

        Nothing is unpickled, and weights are always complete, so there is no `strict`, `hparams_file` or
        `weights_only`.

        Args:
            checkpoint_path: A checkpoint of a run, started from the command line or from Python.
            map_location: Device of the weights. None: the CPU.
            tokenizer: The model's tokenizer. None: the one named in the settings.
            **settings: Arguments of this class that replace the checkpoint's, such as `backbone`.

        Raises:
            UserError: If the checkpoint is damaged or has no settings, or its base model or tokenizer is missing.
        """
        path = Path(checkpoint_path)
        if unknown := sorted(settings.keys() - inspect.signature(cls).parameters.keys()):
            raise UserError(f"load_from_checkpoint: unknown argument {', '.join(unknown)}; see its docstring.")
        saved = read_checkpoint(path, map_location="meta", mmap=True)
        module = cls(**({} if "backbone" in settings else settings_from(saved, path)) | settings)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(saved.get("seed", torch.initial_seed())))
            module._build(tokenizer or module.backbone_settings.load_tokenizer())
        if module.objective_settings.needs_reference:  # the model as it was before training
            keep_reference(module.backbone)
        load_weights(module.backbone, path)
        return module if map_location is None else module.to(map_location)

    def configure_callbacks(self) -> list[Callback]:
        """Add a FiniteGuard, unless the trainer has one (RunHealth is one)."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            check_callbacks(self.trainer.callbacks)  # type: ignore[attr-defined]
        return [] if guards_of(self.trainer) else [FiniteGuard()]

    def training_step(self, micro_batches: list[Batch], batch_idx: int) -> dict[str, Tensor]:
        """Compute a batch's share of the loss of the optimiser step.

        The backward passes of all micro-batches but the last happen here, so that only one micro-batch's activations
        are in memory at a time.

        Returns:
            `loss` of the last micro-batch, for the backward pass. For callbacks, over all micro-batches: `total`, the
            weighted sum of the losses, and its `weight`, in pairs for pairs; `nats` and `nll_weight` of the plain nll.
        """
        trainer, last = self.trainer, len(micro_batches) - 1
        check_passes(trainer.strategy, len(micro_batches))
        total, nats = torch.zeros(2, dtype=torch.float32, device=self.device)
        for index, micro_batch in enumerate(micro_batches):
            part, nll = score(self.objective, self.backbone, micro_batch)
            total += part.detach()
            nats += (nll * micro_batch.weights.flatten()[micro_batch.targets]).sum()
            # strategies average over ranks; multiply to get the sum
            loss = part / max(micro_batch.normaliser, 1e-9) * trainer.world_size
            if index < last:
                with torch.autocast(self.device.type, enabled=False):
                    trainer.strategy.backward(loss, optimizer=None)
        weight, nll_weight = torch.stack([torch.stack((b.weight, b.weights.sum())) for b in micro_batches]).sum(0)
        if any(len(micro_batch.targets) for micro_batch in micro_batches):
            num_examples = sum(len(micro_batch.origins) for micro_batch in micro_batches)
            self.log("train/loss", total / weight, prog_bar=True, batch_size=num_examples)
            if not self.objective_settings.is_nll:
                self.log("train/nll", nats / nll_weight, batch_size=num_examples)
        self.log("train/lr", trainer.optimizers[0].param_groups[0]["lr"])
        # Lightning divides the returned loss by accumulate_grad_batches
        sums = {"total": total, "weight": weight, "nats": nats, "nll_weight": nll_weight}
        return {"loss": loss * trainer.accumulate_grad_batches, **sums}

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Take an optimiser step, then zero the gradients."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        # DeepSpeed calls this for every batch of a step
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0 or self.trainer.is_last_batch:
            optimizer.zero_grad()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Do nothing: Lightning calls this after the forward pass, when micro-batches already have gradients."""

    def validation_step(self, micro_batches: list[Batch], batch_idx: int) -> None:
        """Add a batch to the validation metrics."""
        self._evaluate("val", micro_batches)

    def test_step(self, micro_batches: list[Batch], batch_idx: int) -> None:
        """Add a batch to the test metrics."""
        self._evaluate("test", micro_batches)

    def on_train_start(self) -> None:
        """Apply the current optimiser settings instead of the checkpoint's."""
        self._check_val_every_n_epoch = self.trainer.check_val_every_n_epoch
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, LambdaLR):  # a callback may have replaced it
                restore_options(self.trainer.optimizers[0], config.scheduler, self._optimizer_options)
        self.on_train_epoch_start()  # Lightning skips it for an interrupted epoch

    def on_train_epoch_start(self) -> None:
        """Make sure that the last epoch is validated."""
        if self.trainer.max_epochs == self.current_epoch + 1 and self.trainer.check_val_every_n_epoch is not None:
            self.trainer.check_val_every_n_epoch = 1

    def on_train_end(self) -> None:
        """Restore the user's validation interval."""
        self.trainer.check_val_every_n_epoch = self._check_val_every_n_epoch  # for another fit

    def on_train_epoch_end(self) -> None:
        """Log the validation loss again for callbacks, if the run was resumed after this epoch's validation."""
        metrics = self.metrics.get("val", {})
        if "val/loss" not in self.trainer.callback_metrics and metrics.get("step") == self.trainer.global_step:
            self.log("val/loss", metrics["loss"], logger=False)

    def on_train_batch_start(self, batch: list[Batch], batch_idx: int) -> None:
        """Seed the randomness of the batch, such as dropout."""
        seed_batch(self.data.seed, self.current_epoch, batch_idx, self.global_rank)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Validate after the last batch of a run, whatever the intervals."""
        trainer = self.trainer
        ends_last_epoch = trainer.is_last_batch and trainer.max_epochs == self.current_epoch + 1
        if ends_last_epoch or 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True
            if trainer.check_val_every_n_epoch is not None:
                trainer.check_val_every_n_epoch = 1

    def predict_step(self, indices: list[int], batch_idx: int) -> list[dict[str, Any]]:
        """Answer the final turns of examples; returns one row per example."""
        examples = [self.data.predict_store[index] for index in indices]
        answers = zip(examples, self.answer(examples), strict=True)
        return [answer_row(example, answer, self.data.tokenizer, self.data.end_token_id) for example, answer in answers]

    def answer(self, examples: list[Example], settings: GenerationSettings | None = None) -> list[Generated]:
        """Answer the final turn of each example."""
        with self.trainer.precision_plugin.forward_context():
            return generate(
                self.backbone,
                [example.prompt_ids() for example in examples],
                tokenizer=self.data.tokenizer,
                end_token_id=self.data.end_token_id,
                settings=settings or self.generation_settings,
            )

    def on_validation_epoch_end(self) -> None:
        """Compute and log the validation metrics."""
        metrics = self.split_metrics["val"].finish()  # type: ignore[operator]
        metrics["step"] = self.trainer.global_step
        self.metrics["val"] = metrics
        if not self.trainer.sanity_checking:
            self.log_validation(scalars(metrics, "val"))
        elif self.trainer.global_step == 0 and self.trainer.num_sanity_val_steps == math.inf:
            # Lightning discards the validation before training; over all batches it is the "before"
            self.metrics_before = metrics
            self.log_validation(scalars(metrics, "val"))

    def log_validation(self, metrics: dict[str, float]) -> None:
        """Log validation metrics for checkpoints and curves.

        Curves are logged at the number of optimiser steps taken; Lightning would log them one step earlier, so that one
        validation would appear at two steps.

        Args:
            metrics: By log key, such as `val/loss`; identical on every process.
        """
        trainer = self.trainer
        sync = not isinstance(trainer.strategy, SingleDeviceStrategy)
        for name, value in metrics.items() if not trainer.sanity_checking else ():
            self.log(name, value, prog_bar=name == "val/loss", logger=False, sync_dist=sync)
        for logger in trainer.loggers:
            logger.log_metrics(curves(metrics), step=trainer.global_step)
            logger.save()

    def on_test_epoch_end(self) -> None:
        """Compute and log the test metrics."""
        metrics: SplitMetrics = self.split_metrics["test"]  # type: ignore[assignment]
        self.records = gather_records(metrics.take_records(), self.trainer.world_size)
        self.metrics["test"] = metrics.finish()
        self.log_dict(scalars(self.metrics["test"], "test"), sync_dist=self.trainer.world_size > 1)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build the optimiser and its schedule."""
        precision = str(self.trainer.precision)
        check_optimizer(self.optimizer_settings, self.backbone_settings, self.trainer.strategy)
        warn_of_lost_updates(precision, self.optimizer_settings.lr)
        # with a fused step, the gradient scaler unscales inside it, too late for clipping
        optimizer = build_optimizer(self, self.optimizer_settings, fused=precision != "16-mixed")
        schedule = build_schedule(optimizer, self.optimizer_settings, self.total_steps())
        self._optimizer_options = options_of(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients; also under bf16, where Lightning refuses it for fused optimisers."""
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is None:
            # Lightning refuses under any mixed precision, but bf16 has nothing to unscale
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val or 0.0, algorithm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add metrics and the run's identity; adapters are saved without the frozen weights."""
        is_fitting = self.trainer.state.fn == TrainerFn.FITTING
        for guard in guards_of(self.trainer) if is_fitting else ():
            guard.check(self.trainer, self)  # every kind of checkpoint passes here, so none can hold bad weights
        last, step = self.metrics.get("val", {}), self.trainer.global_step
        add_metrics(checkpoint, last, self.metrics_before, global_step=step)
        add_origin(checkpoint, self.backbone, self, seed=self._seed)
        if is_fitting:
            add_progress(checkpoint, self.trainer, self._identity())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint belongs to this run and this model."""
        is_fitting = self.trainer.state.fn == TrainerFn.FITTING
        if is_fitting:
            keep_stopped(self.trainer, checkpoint)
        if is_fitting and "identity" in checkpoint:
            check_identity(checkpoint["identity"], self._identity(), allow_changes=self.allow_changes)
            self.metrics["val"] = checkpoint.get("figures", {})
            self.metrics_before = checkpoint.get("figures_before", {})
        self._check_weights(checkpoint, Path(str(self.trainer.ckpt_path)))

    def _check_weights(self, checkpoint: dict[str, Any], path: Path) -> None:
        advice = ", or allow the change with `--run.allow_changes true`" * (self.trainer.state.fn == TrainerFn.FITTING)
        check_weights(checkpoint, path, self, self.backbone, allow_changes=self.allow_changes, advice=advice)

    def _identity(self) -> dict[str, str]:
        return run_identity(
            self.trainer, self.data, self.backbone_settings, self.optimizer_settings, self.objective_settings
        )

    def _evaluate(self, split: str, micro_batches: list[Batch]) -> None:
        for batch in micro_batches:
            nll = score(token_nll, self.backbone, batch)
            reference = score(reference_nll, self.backbone, batch) if self.trains_on_pairs else None
            self.split_metrics[split].update(nll, batch, reference)  # type: ignore[operator]

    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return total_steps(self.trainer, self.data)
