"""Reads the files of a run. A damaged line is skipped; a damaged file fails its run only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from data_modules.errors import UserError
from lit_sft.checkpoints.digests import written_digest
from lit_sft.fields import Fields
from lit_sft.files import read_json, read_rows, read_yaml

ANSWER_METRICS = ("exact_match", "rougeL_mixed", "ended", "repetition", "num_tokens")
"""Columns of test_answers.jsonl, as means over the records."""

BITS_PER_BYTE = "bits_per_byte"
"""The metric of text runs that compares tokenizers: its weight is the bytes of a document, the same for all of them."""

PREFERENCE_ACCURACY = "preference_accuracy"
"""The metric of preference pairs: the share whose chosen answer is likelier than the rejected one."""

Sums = dict[str, dict[str, tuple[float, float]]]

_Row = TypeVar("_Row")

_LARGEST = 1e100

Curve = list[tuple[int, dict[str, float]]]


@dataclass(frozen=True)
class TrialResult:
    """Results of one trial.

    Attributes:
        arm: Name of the arm.
        seed: Seed of the run.
        folder: The run folder.
        result: Its result.json.
        record: Its trial.json; empty for a run without `TrialRecord`.
        sums: Value and weight by metric and record origin: nats and tokens for a loss, bits and bytes for bits per
            byte, pairs preferred and pairs for preference accuracy, the value and 1 for a metric of answers.
        curve: Step and nll by mask, for each validation.
        samples: Answers to fixed prompts at the last step, by prompt.
        answers: Reference and answer by origin of the test record.
        config: Its config.yaml.
        damaged: Lines that could not be read, each with its place.
    """

    arm: str
    seed: int
    folder: Path
    result: dict[str, Any]
    record: dict[str, Any]
    sums: Sums
    curve: Curve
    samples: dict[str, str]
    config: dict[str, Any]
    damaged: list[str] = field(default_factory=list)
    answers: dict[str, tuple[str, str]] = field(default_factory=dict)


def read_trial(file: Path, arm: str) -> TrialResult | None:
    """Read a run from its result file; None if it has not been tested.

    Raises:
        UserError: If a file is damaged as a whole.
        OSError: If a file cannot be read.
    """
    run, result = file.parent, read_json(file)
    if result is None:
        return None
    config = Fields(
        read_yaml(run / "config.yaml", advice="A run's settings are written when it starts."), str(run / "config.yaml")
    )
    _check_current(file, Fields(result, str(file)))
    damaged: list[str] = []
    return TrialResult(
        arm=arm,
        seed=int(config.whole("seed_everything")),
        folder=run,
        result=_checked_result(result, str(file)),
        record=_checked_record(read_json(run / "trial.json") or {}, str(run / "trial.json")),
        sums=_sums(run, Fields(result, str(file)), damaged),
        curve=_curve(run, damaged, is_text=config.values.get("data_module") == "text"),
        samples=_last_samples(run, damaged),
        config=dict(config.values),
        damaged=damaged,
        answers=_test_answers(run, Fields(result, str(file))),
    )


def _check_current(file: Path, result: Fields) -> None:
    """Refuse a result whose checkpoint training has replaced since.

    Only possible if the result has the digest of its checkpoint, and the checkpoint still exists.
    """
    if result.values.get("checkpoint") is None or result.values.get("checkpoint_digest") is None:
        return
    tested = file.parent / "checkpoints" / Path(result.text("checkpoint")).name
    if tested.is_file() and written_digest(tested) != result.text("checkpoint_digest"):
        raise UserError(
            f"{file}: out of date: {tested.name} has changed since it was tested. "
            f"Run `python -m lit_sft test {file.parent}` again."
        )


def short_names(files: Iterable[str]) -> dict[str, str]:
    """Names of files without the folders that all of them share."""
    parts = {file: PurePosixPath(file).parts for file in files}
    folders = zip(*(names[:-1] for names in parts.values()), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda names: len(set(names)) == 1, folders))
    return {file: str(PurePosixPath(*names[shared:])) for file, names in parts.items()}


def file_of(origin: str) -> str:
    """The file that a record's origin names."""
    return origin.rpartition(":")[0]


def _checked_result(result: dict[str, Any], place: str) -> dict[str, Any]:
    """Check the types of what the report shows of result.json."""
    found = Fields(result, place)
    if "mask" in found:
        found.text("mask")
    if "ledger" in found and "train" in found.fields("ledger"):
        found.fields("ledger").fields("train")
    return result


def _checked_record(record: dict[str, Any], place: str) -> dict[str, Any]:
    """Check the types in trial.json; null becomes NaN."""
    if not record:
        return record
    found = Fields(record, place)
    steps = {name: found.whole(name) for name in ("step", "of")}
    amounts = ("examples", "tokens", "supervised_tokens", "seconds", "peak_bytes")
    return {**record, **steps, **{name: found.number(name, least=0) for name in amounts}, "order": found.texts("order")}


def _sums(run: Path, result: Fields, damaged: list[str]) -> Sums:
    sums: Sums = {}
    for file in result.file_names("files") if "files" in result else []:
        if not (run / file).is_file():
            raise UserError(f"{run / file}: no such file, but {result.place} names it; test this run again.")
        for origin, values in _read(run / file, _values, damaged):
            for metric, value, weight in values:
                record = sums.setdefault(metric, {})
                before = record.get(origin, (0.0, 0.0))
                record[origin] = before[0] + value, before[1] + weight
    return sums | _by_file(sums)


def _by_file(sums: Sums) -> Sums:
    """Losses by file, if the test records come from several files."""
    names = short_names(sorted({file_of(origin) for origin in sums.get("whole_sequence", {})}))
    if len(names) < 2:
        return {}
    return {
        f"{metric} in {name}": part
        for metric in ("whole_sequence", "output_only")
        for file, name in names.items()
        if (part := {origin: row for origin, row in sums.get(metric, {}).items() if file_of(origin) == file})
    }


def _values(row: Fields) -> tuple[str, list[tuple[str, float, float]]]:
    """The record and the metrics of a line of test_records.jsonl or test_answers.jsonl."""
    origin = row.text("origin")
    if "nats" not in row:
        return origin, [(name, _finite(row.number(name)), 1.0) for name in ANSWER_METRICS if name in row]
    nats, tokens = row.numbers("nats"), row.fields("tokens")
    if nats.keys() != tokens.values.keys():
        raise UserError(f"{row.place}: nats and tokens have different metrics.")
    losses = [(name, _finite(value), float(tokens.whole(name))) for name, value in nats.items()]
    return origin, [*losses, *_bits(row, nats), *_preferred(row)]


def _preferred(row: Fields) -> list[tuple[str, float, float]]:
    """How many pairs of a record have a likelier chosen answer, and how many it has, if it has any."""
    if "pairs" not in row:
        return []
    return [(PREFERENCE_ACCURACY, float(row.whole("preferred")), float(row.whole("pairs")))]


def _bits(row: Fields, nats: dict[str, float]) -> list[tuple[str, float, float]]:
    """The bits of a document and its bytes, if it is of a text run.

    A document's first token is not predicted, and how many bytes it has depends on the tokenizer. The
    bits are scaled up to the whole document, so that its weight is the same for all tokenizers; or 0 if no token of it
    is predicted.
    """
    if "document_bytes" not in row:
        return []
    size, predicted = row.whole("document_bytes"), row.whole("predicted_bytes")
    if not size:
        return []
    if not predicted:
        return [(BITS_PER_BYTE, 0.0, 0.0)]
    return [(BITS_PER_BYTE, _finite(nats["text"] / math.log(2) * size / predicted), float(size))]


def _finite(value: float) -> float:
    """Replace values too large to square and sum by NaN, which makes the mean NaN."""
    return value if abs(value) < _LARGEST else math.nan


def _curve(run: Path, damaged: list[str], *, is_text: bool) -> Curve:
    """Nll by mask at every validation. A text run has no masks to compare, but every token is in its loss."""
    if not is_text:
        return list(_read(run / "loss_modes.jsonl", _point, damaged))
    rows = _read(run / "perplexity.jsonl", lambda row: (row.whole("step"), _finite(row.number("val_nll"))), damaged)
    return [(step, {"text": loss}) for step, loss in rows]


def _point(row: Fields) -> tuple[int, dict[str, float]]:
    """Step and nll by mask of a validation."""
    masks = row.fields("masks")
    return row.whole("step"), {name: _finite(masks.fields(name).number("nll")) for name in masks.values}


def _sample(row: Fields) -> tuple[int, float, str, str]:
    return row.whole("step"), row.number("temperature"), row.text("prompt"), row.text("answer")


def _test_answers(run: Path, result: Fields) -> dict[str, tuple[str, str]]:
    """Reference and answer by record; damaged lines are skipped, as they are noted with the scores."""
    found = {}
    for file in result.file_names("files") if "files" in result else []:
        for row in read_rows(run / file).rows:
            texts = [row.get(name) for name in ("origin", "reference", "answer")]
            if all(isinstance(text, str) for text in texts):
                origin, reference, answer = map(str, texts)
                found[origin] = reference, answer
    return found


def _last_samples(run: Path, damaged: list[str]) -> dict[str, str]:
    samples = list(_read(run / "samples.jsonl", _sample, damaged))
    last = max((step for step, *_ in samples), default=0)
    return {prompt: answer for step, temperature, prompt, answer in samples if step == last and temperature == 0}


def _read(path: Path, take: Callable[[Fields], _Row], damaged: list[str]) -> Iterator[_Row]:
    """Read the valid lines of a file; the others are added to `damaged`."""
    if not path.is_file():
        return
    found = read_rows(path)
    damaged += found.damaged
    for number, row in enumerate(found.rows, start=1):
        try:
            yield take(Fields(row, f"{path}, row {number}"))
        except UserError as error:
            damaged.append(str(error))
