"""result.json: every metric of a test with what is needed to know where it came from."""

from __future__ import annotations

import hashlib
import math
import platform
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data_modules.encoding.example import Example
from data_modules.encoding.example_store import ExampleStore
from data_modules.errors import UserError
from data_modules.progress import shown
from lit_sft.checkpoints.digests import written_digest
from lit_sft.files import json_line, read_json, write_json, write_lines
from lit_sft.metrics.text import exact_match, mean, repetition, rouge_l
from lit_sft.models.answer_rows import answer_row
from lit_sft.models.generation import Generated
from lit_sft.training.module import LitCausalLM

_SAME = 1e-3
"""Losses this close are of the same test: on a GPU, two tests of the same weights differ a little."""

_PACKAGES = ("torch", "lightning", "transformers", "peft", "torchmetrics", "tokenizers", "rouge-score")


@dataclass(frozen=True)
class TestFiles:
    """The files of one test of a run.

    Attributes:
        folder: Of the run.
        name: Tells results of different checkpoints apart, such as `_last`.
    """

    __test__ = False  # for pytest

    folder: Path
    name: str = ""

    @property
    def result(self) -> Path:
        return self.folder / f"result{self.name}.json"

    @property
    def answers(self) -> Path:
        return self.folder / f"test_answers{self.name}.jsonl"

    @property
    def records(self) -> Path:
        return self.folder / f"test_records{self.name}.jsonl"

    def next_earlier(self) -> TestFiles:
        """The first free names for files that make room."""
        names = (f"{self.name}_earlier_{number}" for number in count(1))
        return next(files for files in (TestFiles(self.folder, name) for name in names) if not files.result.exists())


def write_test(
    files: TestFiles, module: LitCausalLM, num_rows: int, *, checkpoint: Path | None, config: str
) -> tuple[dict[str, float], Path | None]:
    """Answer the first rows of the test split, and write answers, records and result.

    Args:
        files: Written. A result that is there already makes room if it differs: nothing is lost.
        module: Tested.
        num_rows: Rows to answer, at most.
        checkpoint: Whose weights they are.
        config: The settings that shape the result, as text to hash.

    Returns:
        Metrics of the answers (see `score_answers`), and where the earlier result is now, if there is one that differs.
    """
    store = module.data.stores["test"]
    read, of = rows_tested(module)
    answers = files.answers.with_name(f"{files.answers.name}.partial")
    metrics = score_answers(module, store, num_rows, answers)
    result = {
        "metrics": {f"test/{name}": value for name, value in module.metrics.get("test", {}).items()},
        "answers": metrics,
        "mask": module.data.mask.name,
        "reduction": module.data.reduction,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "checkpoint_digest": written_digest(checkpoint) if checkpoint is not None and checkpoint.is_file() else None,
        "config_hash": hashlib.sha256(config.encode()).hexdigest()[:16],
        "data_fingerprint": module.data.fingerprint,
        # a test of a part is another test
        "test_fingerprint": _digest(store) + (f" ({read} of {of})" if read < of else ""),
        "test_rows": {"read": read, "of": of},
        "files": [files.records.name, files.answers.name],
        "ledger": module.data.ledgers,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }
    earlier = _make_room(files, result, answers)
    answers.replace(files.answers)
    write_records(files.records, module)
    write_json(files.result, result)
    return metrics, earlier


def rows_tested(module: LitCausalLM) -> tuple[int, int]:
    """How many rows of the test split its metrics are of, as far as the trainer's limit let it go, and of how many."""
    limit: int | float = module.trainer.limit_test_batches
    return module.data.evaluated("test", limit)[0], len(module.data.stores["test"])


def score_answers(module: LitCausalLM, store: ExampleStore, num_rows: int, details: Path) -> dict[str, float]:
    """Answer the first rows and compare with their references.

    Args:
        module: Answers, greedily unless its settings say otherwise.
        store: Examples, of which those with an answer are asked.
        num_rows: How many at most.
        details: JSON lines with every answer are written here.

    Returns:
        Metrics between 0 and 1, their number of rows beside them; empty if no example has an answer.
    """
    examples = [store[index] for index in range(min(num_rows, len(store)))]
    examples = [example for example in examples if example.answer_ids()]
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
    """Write what every record of the test split added to the metrics: `nats` and `tokens` by segment and mask."""
    rows = []
    for origin, sums in sorted(module.records.items()):
        scores = sums.scores()
        nats, tokens = ({name: pair[index] for name, pair in scores.items()} for index in range(2))
        rows.append({"origin": origin, "nats": nats, "tokens": tokens})
    write_lines(path, rows)


def print_metrics(console: Console, title: str, columns: dict[str, dict[str, float]]) -> None:
    """A table of perplexities by segment and mask, one column for each set of metrics."""
    table = Table(title=title, title_justify="left")
    table.add_column("perplexity on")
    for name in columns:
        table.add_column(name, justify="right")
    table.add_column("tokens", justify="right")
    last = list(columns.values())[-1]
    names = [key.removeprefix("perplexity/") for key in last if key.startswith("perplexity/")]
    for name in names:
        values = [f"{metrics[f'perplexity/{name}']:,.2f}" if metrics else "" for metrics in columns.values()]
        table.add_row(name.replace("_", " "), *values, f"{int(last[f'tokens/{name}']):,}")
    console.print(table)


def _digest(store: ExampleStore) -> str:
    """Of everything that a metric of these examples depends on."""
    digest = hashlib.sha256()
    for example in store:
        digest.update(example.input_ids.tobytes() + example.kinds.tobytes() + example.turns.tobytes())
    return digest.hexdigest()[:16]


def _scored(module: LitCausalLM, example: Example, answer: Generated) -> dict[str, Any]:
    row = answer_row(example, answer, module.data.tokenizer, module.data.end_token_id)
    assert row["reference"] is not None  # filtered before
    return {
        **row,
        "exact_match": exact_match(answer.text, row["reference"]),
        "rougeL_mixed": rouge_l(answer.text, row["reference"]),
        "repetition": repetition(answer.text),
    }


def _make_room(files: TestFiles, result: dict[str, Any], answers: Path) -> Path | None:
    """Give an earlier result and its files other names, unless the new ones say the same; where it is now."""
    if not files.result.is_file():
        return None
    try:
        before = read_json(files.result) or {}
    except UserError:  # damaged: kept as it is
        before = {}
    is_same = (
        before.get("test_fingerprint") == result["test_fingerprint"]
        and _is_same_loss(before.get("metrics"), result["metrics"])
        and files.answers.is_file()
        and files.answers.read_bytes() == answers.read_bytes()
    )
    if is_same:
        return None
    place = files.next_earlier()
    for path, moved in ((files.answers, place.answers), (files.records, place.records), (files.result, place.result)):
        if path.is_file():
            path.rename(moved)
    if before:
        write_json(place.result, {**before, "files": [place.records.name, place.answers.name]})
    return place.result


def _is_same_loss(before: Any, now: dict[str, float]) -> bool:
    """Whether two sets of metrics have the same loss; those before are as found in a file, which may be damaged."""
    old, new = (found.get("test/loss") if isinstance(found, dict) else None for found in (before, now))
    if not isinstance(old, float) or not isinstance(new, float):
        return False
    return math.isclose(old, new, rel_tol=_SAME)
