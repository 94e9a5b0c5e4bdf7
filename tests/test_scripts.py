"""Every study script runs a valid command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lit_sft.ablation.command import _parser, _setting
from lit_sft.ablation.study import read_study
from lit_sft.settings.reading import parse_settings
from tests.conftest import alpaca_rows

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
STUDIES = [script for script in SCRIPTS if script.stem not in ("run_study", "overfitting")]


def arguments_of(script: Path, folder: Path, *arguments: str) -> list[str]:
    """The arguments that a script passes to Python when run outside the project folder."""
    python = folder / "bin" / "python"
    python.parent.mkdir(exist_ok=True)
    python.write_text('#!/bin/sh\npwd; for argument in "$@"; do echo "$argument"; done\n')
    python.chmod(0o755)
    path = f"{python.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [script, *arguments], cwd=folder, capture_output=True, text=True, env={**os.environ, "PATH": path}, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script_prints_its_usage(script: Path, tmp_path: Path) -> None:
    done = subprocess.run([script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "MODEL" in done.stderr
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert any(line.startswith("# usage: scripts/") for line in lines)


@pytest.mark.parametrize("script", STUDIES, ids=lambda script: script.stem)
def test_a_script_runs_its_study_on_the_users_files(
    script: Path, tmp_path: Path, write: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rows.jsonl", "texts.jsonl", "rows_test.jsonl", "texts_test.jsonl"):
        (tmp_path / name).write_text("".join(f"{row}\n" for row in alpaca_rows(2)))
    files = ["rows.jsonl"] if script.stem != "cross_data" else [
        "texts.jsonl", "texts_test.jsonl", "rows.jsonl", "rows_test.jsonl"
    ]  # fmt: skip
    folder, *command = arguments_of(
        script, tmp_path, "Some/Model", *files, "--jobs", "2", "--set", "data.max_length=64"
    )
    assert folder == str(ROOT)
    assert command[:3] == ["-m", "lit_sft", "ablate"]
    options = _parser().parse_args(command[3:])
    assert options.root == str(tmp_path / "runs")
    assert options.jobs == 2
    monkeypatch.chdir(ROOT)
    study = read_study(options.config)
    settings = dict(map(_setting, options.set))
    assert settings["model.backbone.pretrained"] == "Some/Model"
    assert settings["data.max_length"] == 64
    every = {**settings, **study.settings}
    trained = every.get("data.train", study.all_arms()[0].settings.get("data.train"))
    assert trained == str(tmp_path / "rows.jsonl")


def test_overfitting_script_runs_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = ROOT / "scripts" / "overfitting.sh"
    _, *command = arguments_of(script, tmp_path, "Some/Model", "rows.jsonl", "--trainer.max_epochs", "7")
    assert command[:3] == ["-m", "lit_sft", "fit"]
    settings = parse_settings(command[3:]).config
    assert settings.trainer.max_epochs == 7
    assert settings.model.backbone.pretrained == "Some/Model"
    assert "callbacks.PerplexityMonitor" in [callback.class_path for callback in settings.trainer.callbacks]
