"""Other trainers run as themselves: their ids and labels of every row equal ours. `make test-conventions`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.conventions.environments import python_of
from tests.conventions.jobs import Job, jobs, run
from tests.conventions.rows import all_rows, build_tokenizer

TRAINERS = ("trl", "torchtune", "litgpt", "llamafactory", "axolotl")
REAL = ("qwen2.5-tokenizer", "smollm2-135m", "gpt2-tokenizer")

pytestmark = [pytest.mark.conventions, pytest.mark.slow]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize("trainer", TRAINERS)
def test_ids_and_labels_equal_the_trainers(
    trainer: str, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(trainer, small, tmp_path, capsys)


@pytest.mark.skipif("LIT_SFT_ASSETS" not in os.environ, reason="LIT_SFT_ASSETS is not set to a folder of real models")
@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("trainer", TRAINERS)
def test_ids_and_labels_equal_the_trainers_with_real_tokenizers(
    trainer: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(trainer, Path(os.environ["LIT_SFT_ASSETS"]) / name, tmp_path, capsys)


def compare(trainer: str, tokenizer: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run all jobs of a trainer that its tokenizer allows, and report how many rows agree."""
    chosen = [job for job in jobs() if job.trainer == trainer and fits(job, tokenizer)]
    if not chosen:
        pytest.skip(f"{trainer} has no template for {tokenizer.name}")
    rows, loaded = all_rows(), AutoTokenizer.from_pretrained(tokenizer)
    assert len(rows) >= 300
    with capsys.disabled():
        results = run(chosen, python_of(trainer), tokenizer, rows, folder)
        print(f"\n{trainer}, {tokenizer.name}: {len(chosen)} settings x {len(rows)} rows, "
              f"{sum(map(len, results))} mismatches")  # fmt: skip
    shown = [f"{job.name}: {bad[0].shown(loaded)}" for job, bad in zip(chosen, results, strict=True) if bad]
    assert not shown, "\n".join(shown)


def fits(job: Job, tokenizer: Path) -> bool:
    """Whether a tokenizer has what a job needs."""
    vocabulary = AutoTokenizer.from_pretrained(tokenizer).get_vocab()
    if "phi3" in job.name:
        return "<|assistant|>" in vocabulary
    if job.trainer == "torchtune":  # its tokenizer splits text as Qwen's do
        return tokenizer.name not in ("smollm2-135m", "gpt2-tokenizer")
    return "<|im_start|>" in vocabulary or job.template == "alpaca"
