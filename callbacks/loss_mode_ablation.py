"""Scores the same weights under every loss mask at every validation."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.table import Table

from callbacks.output import append_row, file_in_run, is_fitting, is_whole_validation, print_for, writers
from data_modules.errors import UserError
from data_modules.rendering.masking import MASKS
from data_modules.text_data_module import TextDataModule
from lit_sft.training.module import LitCausalLM

_WARNING = "Each row averages over different tokens: compare values within a row, not between rows."


class LossModeAblation(Callback):
    """Records nll, perplexity and number of tokens under every named mask.

    This costs nothing extra: the forward passes of validation score all masks. Writes a row at every validation, a
    chart of all masks in TensorBoard (tab "custom scalars"), and a table at the end.

    Args:
        file: JSON lines in the run folder, with step, epoch, training_mask, training_loss (on the validation split,
            with the training weights and reduction) and, by mask, nll (nats per token), perplexity and tokens.
        max_columns: Maximum number of validations in the table, counted from the last, plus the one before training.

    Raises:
        UserError: If `max_columns` is below 1, or the run trains on text.
    """

    def __init__(self, file: str = "loss_modes.jsonl", max_columns: int = 4) -> None:
        if max_columns < 1:
            raise UserError(f"LossModeAblation max_columns {max_columns}: expected at least 1.")
        self.file, self.max_columns = file_in_run(self, file), max_columns
        self.rows: list[dict[str, Any]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse text, of which every mask supervises every token.

        Raises:
            UserError: If the run trains on text.
        """
        if isinstance(trainer.datamodule, TextDataModule):  # type: ignore[attr-defined]
            raise UserError(
                "LossModeAblation compares loss masks, and a text run (data_module: text) trains on every token; "
                "remove it. callbacks.PerplexityMonitor records the perplexity of text."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set up the TensorBoard chart."""
        layout = {"validation": {"nll under every mask": ["Multiline", [f"^val/nll/{name}$" for name in MASKS]]}}
        # a chart of existing curves; `add_scalars` would create a run folder for each mask
        for add_custom_scalars in writers(trainer, "add_custom_scalars"):
            add_custom_scalars(layout)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the metrics under every mask."""
        assert isinstance(pl_module, LitCausalLM)
        if not is_fitting(trainer) or not is_whole_validation(trainer):
            return
        metrics = pl_module.metrics["val"]
        row = {
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "training_mask": pl_module.data.mask.name,
            "training_loss": metrics["loss"],
            "masks": {name: _metrics_of(name, metrics) for name in MASKS if f"nll/{name}" in metrics},
        }
        self.rows.append(row)
        append_row(trainer, self.file, row)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table."""
        if self.rows:
            print_for(trainer, self._table(), _WARNING)

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows."""
        self.rows = list(state_dict["rows"])

    def _table(self) -> Table:
        before = [row for row in self.rows[:1] if row["step"] == 0]
        shown = [*before, *self.rows[len(before) :][-self.max_columns :]]
        table = Table(title="validation loss under every mask, nats per token", title_justify="left")
        table.add_column("mask")
        for row in shown:
            table.add_column(f"step {row['step']}" if row["step"] else "before", justify="right")
        table.add_column("tokens", justify="right")
        last = self.rows[-1]
        for name, metrics in last["masks"].items():
            label = f"{name} (trained)" if name == last["training_mask"] else name
            values = [f"{row['masks'][name]['nll']:.4f}" for row in shown]
            table.add_row(label, *values, f"{metrics['tokens']:,}")
        if last["training_mask"] not in last["masks"]:  # a mask with `prompt_weight`
            values = [f"{row['training_loss']:.4f}" for row in shown]
            table.add_row(f"{last['training_mask']} (trained)", *values, "")
        return table


def _metrics_of(mask: str, metrics: dict[str, float]) -> dict[str, float]:
    nll, perplexity, tokens = (metrics[f"{quantity}/{mask}"] for quantity in ("nll", "perplexity", "tokens"))
    return {"nll": nll, "perplexity": perplexity, "tokens": int(tokens)}
