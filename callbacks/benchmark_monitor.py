"""Scores a suite during training: multiple choice, answers, and perplexity on data other than the run's own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.table import Table

from callbacks.output import append_row, file_in_run, is_fitting, print_for
from data_modules.errors import UserError, UserNotice
from lit_sft.console import cell
from lit_sft.evaluation.evaluate import score_set
from lit_sft.evaluation.harness_code import check_tasks
from lit_sft.evaluation.item_results import Results, compared
from lit_sft.evaluation.suite_file import read_suite
from lit_sft.failures import reason_of_part
from lit_sft.models.generation import GenerationSettings
from lit_sft.models.loaded import LoadedModel
from lit_sft.printable import printable
from lit_sft.reporting.formatting import title_of
from lit_sft.training.module import LitCausalLM


class BenchmarkMonitor(Callback):
    """Scores the model on a suite before training and at validations, like `evaluate`.

    The headline metrics of each set are logged as `benchmark/<set>/<metric>`, so that you can choose the best
    checkpoint by one: `--checkpoint.monitor benchmark/general/accuracy/cloze/per_character --checkpoint.mode max`.
    Modes, caches and the random state are restored, so training is not affected. A set that fails does not affect the
    others.

    Args:
        suite: A file such as configs/evaluate/quickstart.yaml. Its judge is not used, and its lm-eval tasks may not
            contain code.
        every: Score at every n-th validation.
        file: JSON lines in the run folder: step, set, figure (the metric), value, items, and low and high of a 95 %
            interval over the items.

    Raises:
        UserError: If the suite is invalid, or `every` is less than 1.
    """

    logs = ("benchmark/",)

    def __init__(self, suite: str, every: int = 1, file: str = "benchmarks.jsonl") -> None:
        if every < 1:
            raise UserError(f"BenchmarkMonitor every {every}: expected at least 1.")
        self.suite, self.every, self.file = read_suite(suite), every, file_in_run(self, file)
        for settings in self.suite.harness.values():
            if settings.include is not None:
                check_tasks(settings.include, advice="Score it after training with `evaluate --allow_code`.")
        self._num_validations = 0
        self._model: LoadedModel | None = None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the suite, if due, and log, save and print the metrics."""
        if not is_fitting(trainer) or (trainer.sanity_checking and trainer.global_step > 0):
            return
        self._num_validations += not trainer.sanity_checking
        if self._num_validations % self.every:
            return
        assert isinstance(pl_module, LitCausalLM)
        # on every process: a sharded model cannot be scored by one alone
        with trainer.precision_plugin.forward_context():  # the arithmetic that validation uses
            results = self._score(pl_module, Path(trainer.default_root_dir))
        means = {
            (name, metric): results.mean("now", name, metric)
            for name in results.sets
            for metric in results.metrics(name)
        }
        found = {key: mean for key, mean in means.items() if mean is not None}
        for (name, metric), mean in found.items():
            row = {"value": mean.value, "low": mean.low, "high": mean.high, "items": mean.num_rows}
            append_row(trainer, self.file, {"step": trainer.global_step, "set": name, "figure": metric, **row})
        shown = {key: found[key] for key in found if key[1] in compared(results, key[0])}
        values = {f"benchmark/{name.replace(' ', '_')}/{metric}": mean.value for (name, metric), mean in shown.items()}
        pl_module.log_validation(values)
        print_for(trainer, _table(shown, trainer.global_step))

    def generation_steps(self) -> float:
        """Upper bound on generation steps, averaged over validations. A step is one token per row of a batch."""
        sizes = [(each.rows or 0, each.max_new_tokens) for each in self.suite.answers.values()]
        sizes += [(len(each.prompts), each.max_new_tokens) for each in self.suite.prompts.values()]
        at_once = GenerationSettings().batch_size
        return sum(-(-rows // at_once) * tokens for rows, tokens in sizes) / self.every

    def state_dict(self) -> dict[str, Any]:
        """The number of validations so far."""
        return {"num_validations": self._num_validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the number of validations."""
        self._num_validations = state_dict["num_validations"]

    def _score(self, module: LitCausalLM, folder: Path) -> Results:
        model = self._loaded(module)
        results = Results(["now"])
        for kind, name, settings in self.suite.sets():
            try:
                results.results["now", name] = score_set(model, kind, name, settings)
            except Exception as error:  # whatever the error, training continues
                reason = reason_of_part(error, folder)
                warnings.warn(
                    printable(f"BenchmarkMonitor: {name} could not be scored: {reason}"), UserNotice, stacklevel=2
                )
        return results

    def _loaded(self, module: LitCausalLM) -> LoadedModel:
        if self._model is None:
            template = self.suite.template or module.data.encoder.template
            budget = module.data.token_budget
            self._model = LoadedModel("now", module.backbone, module.data.tokenizer, template, budget)
        return self._model


def _table(means: dict[tuple[str, str], Any], step: int) -> Table:
    table = Table(title=f"suite at step {step}" if step else "suite before training", title_justify="left")
    table.add_column("set")
    table.add_column("metric")
    for column in ("value", "95 % interval", "items"):
        table.add_column(column, justify="right")
    for (name, metric), mean in means.items():
        interval = f"{mean.low:.4f} to {mean.high:.4f}" if mean.standard_error > 0 else ""
        table.add_row(cell(name), cell(title_of(metric)), f"{mean.value:.4f}", interval, f"{mean.num_rows:,}")
    return table
