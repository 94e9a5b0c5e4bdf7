"""The command find-lr, as a user would type it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_sft.__main__ import main
from tests.lit_sft.cli.conftest import Write, run

SHORT = ("--steps", "20", "--min_lr", "1e-5", "--max_lr", "10")


def test_points_picture_and_suggestion_are_written_and_nothing_else(
    path: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("find-lr", "--config", path, *SHORT)
    folder = root / "find-lr" / "test_0"
    assert sorted(file.name for file in folder.iterdir()) == ["points.json", "points.png"]
    assert [file.name for file in root.iterdir()] == ["find-lr"]
    assert (folder / "points.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((folder / "points.json").read_text())
    assert 1e-4 < found["suggestion"] < 1
    assert found["points"][0]["lr"] == 1e-5
    assert found["points"][0]["change"] == pytest.approx(0, abs=1e-6)
    said = capsys.readouterr().out
    assert f"use     --model.optimizer.lr {found['suggestion']:g}\n" in said
    assert found["reason"] in said


def test_same_config_gives_the_same_points_in_another_folder(path: str, root: Path, tmp_path: Path) -> None:
    run("find-lr", "--config", path, *SHORT)
    run("find-lr", "--config", path, *SHORT)
    run("find-lr", "--config", path, *SHORT, "--output", str(tmp_path / "mine"))
    folders = (root / "find-lr" / "test_0", root / "find-lr" / "test_1", tmp_path / "mine")
    assert len({(folder / "points.json").read_text() for folder in folders}) == 1


def test_runs_can_be_resumed_after_a_test_of_their_config(path: str, root: Path) -> None:
    run("fit", "--config", path)
    folder = root / "tiny" / "version_0"
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    run("find-lr", "--config", str(folder / "config.yaml"), *SHORT)
    assert before == {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    run("fit", "--resume", "--run.root", str(root), "--trainer.max_steps", "3")
    assert json.loads((folder / "fit.json").read_text())["steps"] == 3


def test_test_without_a_suggestion_says_why_and_ends_with_1(
    path: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["find-lr", "--config", path, "--steps", "20", "--min_lr", "1e-9", "--max_lr", "1e-8"]) == 1
    assert "no suggestion: the loss fell at no learning rate; raise `--max_lr`" in capsys.readouterr().out
    assert json.loads((root / "find-lr" / "test_0" / "points.json").read_text())["suggestion"] is None


def test_text_is_tested_too(config: dict[str, Any], write: Write, root: Path) -> None:
    text = {
        "train": write("text.txt", "The dog sleeps.\n\nA cat sings.\n\n" * 40),
        "val_fraction": 0.2,
        "block_size": 32,
    }
    settings = {**config, "data_module": "text", "data": text}
    run("find-lr", "--config", write("text.yaml", yaml.safe_dump(settings)), *SHORT)
    assert json.loads((root / "find-lr" / "test_0" / "points.json").read_text())["suggestion"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "5"], "--steps 5: expected at least 20."),
        (["--min_lr", "1", "--max_lr", "0.1"], "--min_lr 1, --max_lr 0.1: expected two positive rates"),
        (["--min_lr", "0"], "--min_lr 0, --max_lr 1: expected two positive rates"),
        (["--resume", "x"], "leave out --ckpt_path and --resume"),
        (["--trainer.devices", "2"], "find-lr runs on one device; add `--trainer.devices 1"),
        (["--output", "PATH"], "exists and is not an empty folder"),
    ],
)
def test_what_cannot_be_tested_is_refused(
    path: str, tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    given = [str(tmp_path) if argument == "PATH" else argument for argument in arguments]
    assert main(["find-lr", "--config", path, *given]) == 2
    assert message in capsys.readouterr().err
    assert not list(root.glob("find-lr/*"))


def test_config_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["find-lr"]) == 2
    assert "find-lr needs the config that you will train with: `--config FILE`." in capsys.readouterr().err
