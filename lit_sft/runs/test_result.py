"""Writes result.json: all metrics of a test, with their provenance."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from data_modules.encoding.example import Example
from data_modules.encoding.example_store import ExampleStore
from data_modules.encoding.text_store import EvaluationWindows
from data_modules.errors import UserError
from data_modules.progress import with_progress
from data_modules.records.thinking import without_thinking
from data_modules.text_data_module import TextDataModule
from lit_sft.checkpoints.digests import written_digest
from lit_sft.files import json_line, read_json, write_json, write_lines
from lit_sft.metrics.segments import RecordSums
from lit_sft.metrics.text import exact_match, mean, repetition, rouge_l
from lit_sft.models.answer_rows import answer_row
from lit_sft.models.generation import Generated
from lit_sft.training.module import LitCausalLM

_SAME = 1e-3
"""Losses this close count as equal: on a GPU, two tests of the same weights differ slightly."""

_PACKAGES = ("torch", "lightning", "transformers", "peft", "torchmetrics", "tokenizers", "rouge-score")


@dataclass(frozen=True)
class TestFiles:
    """The files of one test of a run.

    Attributes:
        folder: The run folder.
        name: Suffix for results of other checkpoints, such as `_last`.
    """

    __test__ = False  # for pytest

    folder: Path
    name: str = ""

    @property
    def result(self) -> Path:
        """The metrics and their provenance."""
        return self.folder / f"result{self.name}.json"

    @property
    def answers(self) -> Path:
        """The scored answers."""
        return self.folder / f"test_answers{self.name}.jsonl"

    @property
    def records(self) -> Path:
        """The loss of each record."""
        return self.folder / f"test_records{self.name}.jsonl"

    def next_earlier(self) -> TestFiles:
        """The first free names to rename earlier files to."""
        names = (f"{self.name}_earlier_{number}" for number in count(1))
        return next(files for files in (TestFiles(self.folder, name) for name in names) if not files.result.exists())


def write_test(
    files: TestFiles, module: LitCausalLM, num_rows: int, *, checkpoint: Path | None, config: str
) -> tuple[dict[str, float], Path | None]:
    """Answer the first rows of the test split, and write answers, records and result.

    Args:
        files: Files to write. An earlier result that differs is renamed, so nothing is lost.
        module: The tested module.
        num_rows: Rows to answer, at most.
        checkpoint: The tested checkpoint.
        config: The settings that affect the result, as text to hash.

    Returns:
        Metrics of the answers (see `score_answers`), and the new path of an earlier result that differs, if any.
    """
    store = module.data.stores["test"]
    assert isinstance(store, (ExampleStore, EvaluationWindows))
    read, of = rows_tested(module)
    answers = files.answers.with_name(f"{files.answers.name}.partial")
    asked = store if isinstance(store, ExampleStore) else ()  # text has no answers
    metrics = score_answers(module, asked, num_rows, answers)
    result = {
        "metrics": {f"test/{name}": value for name, value in module.metrics.get("test", {}).items()},
        "answers": metrics,
        "mask": module.data.mask.name,
        "reduction": module.data.reduction,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "checkpoint_digest": written_digest(checkpoint) if checkpoint is not None and checkpoint.is_file() else None,
        "config_hash": hashlib.sha256(config.encode()).hexdigest()[:16],
        "data_fingerprint": module.data.fingerprint,
        # a test of some of the rows is a different test
        "test_fingerprint": store.digest() + (f" ({read} of {of})" if read < of else ""),
        "test_rows": {"read": read, "of": of},
        "files": [files.records.name, files.answers.name],
        "ledger": _ledger(module, files.folder),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }
    earlier = _make_room(files, result, answers)
    answers.replace(files.answers)
    write_records(files.records, module)
    write_json(files.result, result)
    return metrics, earlier


def rows_tested(module: LitCausalLM) -> tuple[int, int]:
    """How many rows of the test split were tested, given the trainer's limit, and how many there are."""
    limit: int | float = module.trainer.limit_test_batches
    return module.data.evaluated("test", limit)[0], len(module.data.stores["test"])


def score_answers(
    module: LitCausalLM, store: ExampleStore | Sequence[Example], num_rows: int, details: Path
) -> dict[str, float]:
    """Answer the first rows and compare with their references.

    Args:
        module: Generates the answers; greedily, unless its settings differ.
        store: Examples; those without a reference answer are skipped.
        num_rows: Examples to read, at most.
        details: File for the answers, as JSON lines.

    Returns:
        The number of rows and the mean of each metric; empty if no example has an answer.
    """
    examples = [store[index] for index in range(min(num_rows, len(store)))]
    examples = [example for example in examples if example.answer_ids()]
    rows: list[dict[str, Any]] = []
    step = module.generation_settings.batch_size
    with details.open("w", encoding="utf-8") as stream:
        chunks = [examples[start : start + step] for start in range(0, len(examples), step)]
        for chunk in with_progress(chunks, "answering", f"batches of {step} rows", len(chunks)):
            for example, answer in zip(chunk, module.answer(chunk), strict=True):
                rows.append(_scored(module, example, answer))
                stream.write(json_line(rows[-1]))
    if not rows:
        return {}
    names = ("exact_match", "rougeL_mixed", "ended", "num_tokens", "repetition")
    return {"rows": len(rows), **{name: mean([float(row[name]) for row in rows]) for name in names}}


def write_records(path: Path, module: LitCausalLM) -> None:
    """Write what each test record contributes to the metrics: nats and tokens by segment and mask.

    For text also bytes; for preference pairs, how many have a likelier chosen answer, `preferred`, of how many `pairs`.
    """
    rows = []
    for origin, sums in sorted(module.records.items()):
        scores = sums.scores()
        nats, tokens = ({name: pair[index] for name, pair in scores.items()} for index in range(2))
        preferred, pairs = map(int, sums.preferred)
        counts = {"preferred": preferred, "pairs": pairs} if pairs else _bytes(module, origin, sums)
        rows.append({"origin": origin, "nats": nats, "tokens": tokens, **counts})
    write_lines(path, rows)


def _ledger(module: LitCausalLM, run: Path) -> dict[str, Any]:
    """The ledger of every split. In a text run, that of `train` as `fit` wrote it, because testing plans no blocks."""
    ledgers = module.data.ledgers
    if not isinstance(module.data, TextDataModule) or "train" not in ledgers:
        return ledgers
    written = (read_json(run / "ledger.json") or {}).get("train")
    return {**ledgers, "train": written} if written else ledgers


def _bytes(module: LitCausalLM, origin: str, sums: RecordSums) -> dict[str, int]:
    """The bytes of a document of a text run, and those of its predicted tokens, which are all but the first."""
    store = module.data.stores["test"]
    if not isinstance(store, EvaluationWindows):
        return {}
    _, predicted = sums.scores("bytes").get("text", (0.0, 0))
    return {"document_bytes": store.num_bytes(origin), "predicted_bytes": predicted}


def _scored(module: LitCausalLM, example: Example, answer: Generated) -> dict[str, Any]:
    row = answer_row(example, answer, module.data.tokenizer, module.data.end_token_id)
    assert row["reference"] is not None  # the caller skips such examples
    text, expected = answer.text, without_thinking(row["reference"])
    if expected != row["reference"]:  # thinking differs every time
        text = without_thinking(text)
    return {
        **row,
        "exact_match": exact_match(text, expected),
        "rougeL_mixed": rouge_l(text, expected),
        "repetition": repetition(answer.text),
    }


def _make_room(files: TestFiles, result: dict[str, Any], answers: Path) -> Path | None:
    """Rename an earlier result and its files if the new result differs; returns the new path."""
    if not files.result.is_file():
        return None
    try:
        before = read_json(files.result) or {}
    except UserError:  # damaged; still kept
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
    """Whether two sets of metrics have the same loss. The earlier ones come from a file that may be damaged."""
    old, new = (found.get("test/loss") if isinstance(found, dict) else None for found in (before, now))
    if not isinstance(old, float) or not isinstance(new, float):
        return False
    return math.isclose(old, new, rel_tol=_SAME)
