"""A suite scored while training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks import BenchmarkMonitor
from lit_sft.evaluation.evaluate import _SCORERS, evaluate, score_set
from lit_sft.evaluation.item_results import Results
from lit_sft.evaluation.suite_file import read_suite
from lit_sft.models.loaded import LoadedModel
from tests.conftest import alpaca_rows

Write = Callable[..., str]


@pytest.fixture
def suite(write: Write) -> str:
    rows = write("held_out.jsonl", alpaca_rows(6))
    return write(
        "suite.yaml",
        f"template: chatml\nchoices: {{general: {{rows: 4}}}}\nconversations: {{own rows: {{data: {rows}}}}}\n"
        "text: {missing: {data: nowhere.txt}}\n",
    )


def test_metrics_equal_those_of_evaluate_and_can_select_the_best_checkpoint(
    fit: Callable[..., Any], suite: str
) -> None:
    monitor = BenchmarkMonitor(suite)
    with pytest.warns(UserWarning, match="missing could not be scored: .*nowhere.txt"):
        run = fit([monitor])
    rows = run.rows("benchmarks.jsonl")
    assert sorted({row["step"] for row in rows}) == [0, 2, 4]
    last = {(row["set"], row["figure"]): row for row in rows if row["step"] == 4}
    data = run.data
    model = LoadedModel("after", run.module.backbone.eval(), data.tokenizer, "chatml", 512)
    expected = Results(["after"])
    for kind, name, settings in monitor.suite.sets():
        if name != "missing":
            expected.results["after", name] = score_set(model, kind, name, settings)
    for (name, metric), row in last.items():
        mean = expected.mean("after", name, metric)
        assert mean is not None
        assert (row["value"], row["items"]) == (pytest.approx(mean.value, rel=1e-5), mean.num_rows)
    logged = run.trainer.callback_metrics
    found = last["own rows", "bits_per_byte/answer"]["value"]
    assert float(logged["benchmark/own_rows/bits_per_byte/answer"]) == pytest.approx(found)
    assert "benchmark/general/accuracy/cloze/per_character" in logged


def test_the_best_checkpoint_is_chosen_by_a_metric_of_the_suite(
    fit: Callable[..., Any], suite: str, tmp_path: Path
) -> None:
    monitor = "benchmark/own_rows/bits_per_byte/answer"
    checkpoint = ModelCheckpoint(tmp_path / "checkpoints", filename="best", monitor=monitor)
    with pytest.warns(UserWarning, match="missing could not be scored"):
        run = fit([BenchmarkMonitor(suite), checkpoint], enable_checkpointing=True, lr=1.0)
    by_step = {
        row["step"]: row["value"]
        for row in run.rows("benchmarks.jsonl")
        if (row["set"], row["figure"]) == ("own rows", "bits_per_byte/answer") and row["step"]
    }
    best = min(by_step, key=lambda step: by_step[step])
    assert torch.load(checkpoint.best_model_path, weights_only=True)["global_step"] == best
    assert float(checkpoint.best_model_score or 0) == pytest.approx(by_step[best])


def test_scores_only_every_nth_validation(fit: Callable[..., Any], suite: str) -> None:
    with pytest.warns(UserWarning, match="missing could not be scored"):
        run = fit([BenchmarkMonitor(suite, every=2)])
    assert sorted({row["step"] for row in run.rows("benchmarks.jsonl")}) == [0, 4]


def test_invalid_suite_is_rejected_before_anything_runs(write: Write, suite: str) -> None:
    with pytest.raises(ValueError, match=r"wrong\.yaml: .*choicse"):
        BenchmarkMonitor(write("wrong.yaml", "choicse: {general: {}}"))
    with pytest.raises(ValueError, match="every 0: expected at least 1"):
        BenchmarkMonitor(suite, every=0)


def test_the_traceback_of_a_set_that_fails_is_kept_in_the_run_folder(
    fit: Callable[..., Any], write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise KeyError("scorer error")

    monkeypatch.delenv("LIT_SFT_DEBUG", raising=False)
    monkeypatch.setitem(_SCORERS, "text", fail)
    suite = write("suite.yaml", "text: {prose: {data: nowhere.txt}}\n")
    with pytest.warns(UserWarning, match=r"prose could not be scored: KeyError: .*errors\.log"):
        run = fit([BenchmarkMonitor(suite)], max_steps=1, val_check_interval=1, num_sanity_val_steps=0)
    assert "scorer error" in (run.folder / "errors.log").read_text(encoding="utf-8")


def test_traceback_of_an_internal_error_is_kept(tmp_path: Path, suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> LoadedModel:
        raise KeyError("a fault of the loader")

    said: list[str] = []
    monkeypatch.delenv("LIT_SFT_DEBUG", raising=False)
    results = evaluate(read_suite(suite), {"base": load}, tmp_path, said.append, said.append)
    assert said == [f"base: {results.failures['base']}"]
    assert str(tmp_path / "errors.log") in said[0]
    assert "in load" in (tmp_path / "errors.log").read_text(encoding="utf-8")
    monkeypatch.setenv("LIT_SFT_DEBUG", "1")
    with pytest.raises(KeyError, match="a fault of the loader"):
        evaluate(read_suite(suite), {"base": load}, tmp_path, said.append, said.append)
