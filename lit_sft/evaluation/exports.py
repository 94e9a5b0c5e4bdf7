"""Results for other programs: results.json and report.csv."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lit_sft.evaluation.contamination import Exposure
from lit_sft.evaluation.item_results import Change, Results
from lit_sft.evaluation.suite import Suite
from lit_sft.evaluation.win_rate import AllVerdicts, SetVerdicts, length_controlled_rate, rate
from lit_sft.files import write_json
from lit_sft.reporting.sheets import write_csv


def write_results(
    path: Path,
    suite: Suite,
    results: Results,
    changes: list[Change],
    judgings: AllVerdicts,
    exposures: Mapping[str, Exposure],
) -> None:
    """Write means, changes, win rates and contamination as JSON; unknown values are null."""
    found = {
        "suite": suite.name,
        "models": results.models,
        "figures": {
            model: {
                name: {
                    metric: {"value": mean.value, "low": mean.low, "high": mean.high, "items": mean.num_rows}
                    for metric in results.metrics(name)
                    if (mean := results.mean(model, name, metric))
                }
                for name in results.sets
            }
            for model in results.models
        },
        "changes": [
            {
                "model": c.model,
                "set": c.set,
                "group": c.group,
                "figure": c.metric,
                "before": c.before,
                "after": c.after,
                "p_value": c.p_value,
                "adjusted_p": c.adjusted_p,
                "change": c.estimate.value,
                "low": c.estimate.low,
                "high": c.estimate.high,
                "items": c.estimate.num_rows,
            }
            for c in changes
        ],
        "win_rates": [_win_rate(model, name, judging) for (model, name), judging in judgings.items()],
        "training_data": {
            model: {
                "files": exposure.data.named,
                "state": exposure.data.state,
                "items_in_training": {name: sorted(items) for name, items in exposure.trained.items()},
                "items_in_validation": {name: sorted(items) for name, items in exposure.chosen.items()},
            }
            for model, exposure in exposures.items()
        },
        "failures": results.failures,
    }
    write_json(path, found)


def _win_rate(model: str, name: str, judging: SetVerdicts) -> dict[str, Any]:
    found = rate(judging)
    return {
        "model": model,
        "set": name,
        "pairs": len(judging.judged),
        "judged": len(judging.scores),
        "rate": found.value if found else None,
        "standard_error": found.standard_error if found else None,
        "rate_at_like_length": length_controlled_rate(judging),
        "agreement": judging.agreement,
        "first_share": judging.first_share,
        "without_verdict": judging.count(unparsed=True),
        "failed": judging.count(unparsed=False),
        "cost": judging.cost,
    }


def write_table(path: Path, results: Results, changes: list[Change]) -> None:
    """Write every mean and change, a CSV row each."""
    write_csv(path, _lines(results, changes))


def _lines(results: Results, changes: list[Change]) -> Iterator[list[object]]:
    yield ["what", "model", "set", "part", "figure", "value", "low", "high", "p", "p_holm", "items"]
    for model in results.models:
        for name in results.sets:
            for metric in results.metrics(name):
                if mean := results.mean(model, name, metric):
                    yield ["mean", model, name, "", metric, mean.value, mean.low, mean.high, "", "", mean.num_rows]
    for c in changes:
        e = c.estimate
        numbers = [e.value, e.low, e.high, c.p_value, c.adjusted_p, e.num_rows]
        yield ["change", c.model, c.set, c.group, c.metric, *numbers]
