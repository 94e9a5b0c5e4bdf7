"""result.json: every figure of a test with what is needed to know where it came from."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import BasePredictionWriter
from rich.console import Console
from rich.table import Table

from data_modules.encoding import Example
from data_modules.example_store import ExampleStore
from data_modules.progress import shown
from lit_sft.files import json_line, write_json, write_lines
from lit_sft.generation import Generated
from lit_sft.module import LitCausalLM
from lit_sft.text_metrics import exact_match, mean, repetition, rouge_l

_PACKAGES = ("torch", "lightning", "transformers", "peft", "torchmetrics", "tokenizers", "rouge-score")


def score_answers(module: LitCausalLM, store: ExampleStore, num_rows: int, details: Path) -> dict[str, float]:
    """Answer the first rows and compare with their references.

    Args:
        module: Answers, greedily unless its settings say otherwise.
        store: Examples, of which those with an answer are asked.
        num_rows: How many at most.
        details: JSON lines with every answer are written here.

    Returns:
        Figures between 0 and 1, their number of rows beside them; empty if no example has an answer.
    """
    examples = [store[index] for index in range(min(num_rows, len(store)))]
    examples = [example for example in examples if module.reference(example) is not None]
    rows: list[dict[str, Any]] = []
    step = module.generation_settings.batch_size
    with details.open("w", encoding="utf-8") as stream:
        chunks = [examples[start : start + step] for start in range(0, len(examples), step)]
        for chunk in shown(chunks, "answering", f"batches of {step} rows", len(chunks)):
            for example, answer in zip(chunk, module.answer(chunk), strict=True):
                rows.append(_scored(module, example, answer))
                stream.write(json_line(rows[-1]))
    if not rows:
        return {}
    names = ("exact_match", "rougeL_mixed", "ended", "num_tokens", "repetition")
    return {"rows": len(rows), **{name: mean([float(row[name]) for row in rows]) for name in names}}


def write_records(path: Path, module: LitCausalLM) -> None:
    """Write what every record of the test split added to the figures: `nats` and `tokens` by segment and mask."""
    rows = []
    for origin, sums in sorted(module.records.items()):
        scores = sums.scores()
        nats, tokens = ({name: pair[index] for name, pair in scores.items()} for index in range(2))
        rows.append({"origin": origin, "nats": nats, "tokens": tokens})
    write_lines(path, rows)


def write_result(
    path: Path,
    module: LitCausalLM,
    *,
    checkpoint: Path | None,
    config: str,
    answers: dict[str, float],
    files: list[str],
) -> None:
    """Write result.json, whole or not at all."""
    result = {
        "metrics": {f"test/{name}": value for name, value in module.figures.get("test", {}).items()},
        "answers": answers,
        "mask": module.data.mask.name,
        "reduction": module.data.reduction,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "config_hash": hashlib.sha256(config.encode()).hexdigest()[:16],
        "data_fingerprint": module.data.fingerprint,
        "test_fingerprint": _digest(module.data.stores["test"]),
        "files": files,
        "ledger": module.data.ledgers,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }
    write_json(path, result)


def print_figures(console: Console, title: str, columns: dict[str, dict[str, float]]) -> None:
    """A table of perplexities by segment and mask, one column for each set of figures."""
    table = Table(title=title, title_justify="left")
    table.add_column("perplexity on")
    for name in columns:
        table.add_column(name, justify="right")
    table.add_column("tokens", justify="right")
    last = list(columns.values())[-1]
    names = [key.removeprefix("perplexity/") for key in last if key.startswith("perplexity/")]
    for name in names:
        values = [f"{figures[f'perplexity/{name}']:,.2f}" if figures else "" for figures in columns.values()]
        table.add_row(name.replace("_", " "), *values, f"{int(last[f'tokens/{name}']):,}")
    console.print(table)


class PredictionWriter(BasePredictionWriter):
    """Writes predictions as JSON lines while they are made, into a file aside that takes its place when complete.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(write_interval="batch")
        self.path, self.partial = path, path.with_suffix(".partial")

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        self.partial.write_text("", encoding="utf-8")

    def write_on_batch_end(self, trainer: Any, pl_module: Any, prediction: Any, *_: Any) -> None:
        with self.partial.open("a", encoding="utf-8") as stream:
            stream.writelines(map(json_line, prediction))

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        self.partial.replace(self.path)


def _digest(store: ExampleStore) -> str:
    """Of everything that a figure of these examples depends on."""
    digest = hashlib.sha256()
    for example in store:
        digest.update(example.input_ids.tobytes() + example.kinds.tobytes() + example.turns.tobytes())
    return digest.hexdigest()[:16]


def _scored(module: LitCausalLM, example: Example, answer: Generated) -> dict[str, Any]:
    reference = module.reference(example)
    assert reference is not None  # filtered before
    return {
        "origin": example.origin,
        "answer": answer.text,
        "reference": reference,
        "exact_match": exact_match(answer.text, reference),
        "rougeL_mixed": rouge_l(answer.text, reference),
        "ended": answer.ended,
        "num_tokens": answer.num_tokens,
        "repetition": repetition(answer.text),
    }
