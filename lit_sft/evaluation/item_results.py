"""Scores on disk and in memory, their means, and paired differences between two models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from scipy.stats import binomtest

from data_modules.errors import UserError
from lit_sft.evaluation.scores import Scored, has_mean
from lit_sft.files import read_json, read_rows, write_json, write_lines
from lit_sft.reporting.differences import Difference
from lit_sft.reporting.formatting import SHARES, direction, title_of
from lit_sft.reporting.statistics import Estimate, estimate, holm

_Kind = TypeVar("_Kind")

_COMPARED = {
    "text": ("bits_per_byte",),
    "conversations": ("bits_per_byte/answer", "bits_per_byte/user"),
    "answers": ("rougeL_mixed", "exact_match", "chrf"),
}
"""The metrics that models are compared by; of losses, those that do not depend on the tokenizer."""


@dataclass(frozen=True)
class SetResult:
    """One model's scores on one set.

    Attributes:
        kind: Kind of the set, a name in KINDS.
        rows: Scores by item.
        skipped: Why items were skipped; the first reasons if there are many.
        seconds: Time taken.
        more_skipped: Skipped items that `skipped` does not list.
    """

    kind: str
    rows: dict[str, Scored]
    skipped: list[str]
    seconds: float
    more_skipped: int = 0

    @property
    def num_skipped(self) -> int:
        """Number of all skipped items."""
        return len(self.skipped) + self.more_skipped


@dataclass(frozen=True, kw_only=True)
class Change(Difference):
    """A model against the baseline in one metric of one set, item by item.

    p comes from McNemar's exact test where items are right or wrong, otherwise from Student's t.

    Attributes:
        model: Its name.
        set: The set's name.
        group: Part of the set; empty for all of it.
    """

    model: str
    set: str
    group: str


class Results:
    """All models on all sets.

    Attributes:
        models: Names, the baseline first.
        results: By model and set.
        about: A description of each model.
        digests: A digest of each model's weights, tokenizer and template.
        failures: Why a model, or a model on a set, could not be scored.
    """

    def __init__(self, models: list[str]) -> None:
        self.models = models
        self.results: dict[tuple[str, str], SetResult] = {}
        self.about: dict[str, str] = {}
        self.digests: dict[str, str] = {}
        self.failures: dict[str, str] = {}

    @property
    def sets(self) -> list[str]:
        """Names of all sets with a result."""
        return list(dict.fromkeys(name for _, name in self.results))

    def kind(self, name: str) -> str:
        """Kind of a set."""
        return next(result.kind for (_, other), result in self.results.items() if other == name)

    def metrics(self, name: str) -> list[str]:
        """Metrics of a set, in the order in which they were written."""
        found = [r for (_, other), r in self.results.items() if other == name]
        return list(dict.fromkeys(metric for r in found for row in r.rows.values() for metric in row.metrics))

    def groups(self, name: str) -> list[str]:
        """The parts of a set; empty if there is only one."""
        found = [r for (_, other), r in self.results.items() if other == name]
        groups = sorted({row.group for r in found for row in r.rows.values() if row.group})
        return groups if len(groups) > 1 else []

    def values(self, model: str, name: str, metric: str, group: str = "") -> dict[str, tuple[float, float]]:
        """Value and weight of each item that has both."""
        result = self.results.get((model, name))
        rows = result.rows.values() if result else ()
        found = {r.item: r.metrics[metric] for r in rows if metric in r.metrics and group in ("", r.group)}
        return {item: pair for item, pair in found.items() if has_mean(*pair)}

    def mean(self, model: str, name: str, metric: str, items: set[str] | None = None) -> Estimate | None:
        """Mean of a metric over a set's items, or some of them; None if there are none."""
        values = {i: v for i, v in self.values(model, name, metric).items() if items is None or i in items}
        return _estimate(values.values()) if values else None

    def change(self, model: str, name: str, metric: str, group: str = "") -> Change | None:
        """Difference from the baseline, over the items that both have.

        Returns:
            None if they share no item.

        Raises:
            UserError: If an item has different weights: the models were scored on different tokens.
        """
        after, before = (self.values(m, name, metric, group) for m in (model, self.models[0]))
        shared = sorted(after.keys() & before.keys())
        if not shared:
            return None
        if any(after[item][1] != before[item][1] for item in shared):
            raise UserError("not comparable: scored on different tokens (different tokenizers or templates)")
        pairs = [(after[i][0] - before[i][0], after[i][1]) for i in shared]
        found = _estimate(pairs)
        p = _mcnemar(pairs) if _is_binary(metric, [*after.values(), *before.values()]) else found.p_value
        ours, theirs = (_estimate(part[i] for i in shared).value for part in (after, before))
        return Change(metric, theirs, ours, found, p, model=model, set=name, group=group)


def compare(results: Results) -> tuple[list[Change], dict[str, str]]:
    """Compare every model with the baseline; p-values are adjusted within each family.

    Returns:
        The changes, and why other comparisons are impossible.
    """
    refused: dict[str, str] = {}
    families: dict[tuple[str, str], list[Change]] = {}
    for model in results.models[1:]:
        for name in results.sets:
            for metric in compared(results, name):
                for group in ["", *results.groups(name)]:
                    try:
                        change = results.change(model, name, metric, group)
                    except UserError as error:
                        refused[f"{model}, {name}, {title_of(metric)}"] = str(error)
                        break
                    if change is not None:
                        families.setdefault((model, f"{name} {metric}" if group else ""), []).append(change)
    return [change for family in families.values() for change in _adjusted(family)], refused


def compared(results: Results, name: str) -> list[str]:
    """Metrics of a set that models are compared by; in multiple choice, the first rule of each form."""
    metrics, kind = results.metrics(name), results.kind(name)
    if kind == "prompts":
        return []
    if kind == "harness":
        by_name = {metric.partition("/")[0]: metric for metric in reversed(metrics)}
        return [by_name[share] for share in SHARES if share in by_name][:1]
    if kind == "choices":
        forms = dict.fromkeys(metric.rpartition("/")[0] for metric in metrics)
        return [next(metric for metric in metrics if metric.startswith(form)) for form in forms]
    return [metric for metric in _COMPARED[kind] if metric in metrics]


def _adjusted(changes: list[Change]) -> list[Change]:
    """Adjust the p-values of a family."""
    p_values = holm([change.p_value for change in changes])
    return [replace(change, adjusted_p=p) for change, p in zip(changes, p_values, strict=True)]


def _estimate(pairs: Iterable[tuple[float, float]]) -> Estimate:
    values = np.array(list(pairs), dtype=np.float64)
    return estimate(values[None, :, 0], values[:, 1])


def _is_binary(metric: str, values: list[tuple[float, float]]) -> bool:
    return direction(metric) == 1 and all(weight == 1 and value in (0, 1) for value, weight in values)


def _mcnemar(pairs: list[tuple[float, float]]) -> float:
    """McNemar's exact test on the items that only one of the two models has right."""
    better, worse = (sum(difference == sign for difference, _ in pairs) for sign in (1, -1))
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def write_set(folder: Path, name: str, key: str, result: SetResult) -> None:
    """Write `<set>.jsonl`, one item per line, then `<set>.json`, which marks it as complete."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "key": key,
        "kind": result.kind,
        "items": len(result.rows),
        "seconds": result.seconds,
        "skipped": result.skipped,
        "more_skipped": result.more_skipped,
    }
    (folder / f"{name}.json").unlink(missing_ok=True)
    write_lines(folder / f"{name}.jsonl", (row.row() for row in result.rows.values()))
    write_json(folder / f"{name}.json", about)


def read_set(folder: Path, name: str, key: str) -> SetResult | None:
    """Read earlier scores; None if they are missing, damaged, or of another model, set or data."""
    try:
        about = read_json(folder / f"{name}.json")
        if about is None or about["key"] != key:
            return None
        found = read_rows(folder / f"{name}.jsonl")
        rows = {row.item: row for row in map(_read_row, found.rows)}
        if found.damaged or len(rows) != about["items"]:
            return None
        return SetResult(
            kind=_as(str, about["kind"]),
            rows=rows,
            skipped=[_as(str, reason) for reason in _as(list, about["skipped"])],
            seconds=float(about["seconds"]),
            more_skipped=_as(int, about.get("more_skipped", 0)),
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None


def _read_row(row: dict[str, Any]) -> Scored:
    metrics = {name: (float(value), float(weight)) for name, (value, weight) in _as(dict, row["figures"]).items()}
    return Scored(_as(str, row["item"]), metrics, _as(str, row["group"]), _as(dict, row["details"]))


def _as(kind: type[_Kind], value: Any) -> _Kind:
    """Check the type of a value.

    Raises:
        TypeError: If it is another.
    """
    if not isinstance(value, kind):
        raise TypeError(f"found {type(value).__name__}; expected {kind.__name__}")
    return value
