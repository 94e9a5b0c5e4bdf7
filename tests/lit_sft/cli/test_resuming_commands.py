"""Runs that are interrupted, resumed, opened by name or missing something, as a user would type the commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer

from lit_sft.__main__ import main
from tests.lit_sft.cli.conftest import Write, run


def test_newest_run_is_the_one_started_last(path: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("first", "second"):
        run("fit", "--config", path, "--run.name", name)
    capsys.readouterr()
    run("validate", "--run.root", str(root))
    assert f"run {root / 'second' / 'version_0'}," in capsys.readouterr().out
    shutil.rmtree(root / "second" / "version_0" / "checkpoints")
    run("validate", "--run.root", str(root))
    assert f"run {root / 'first' / 'version_0'}," in capsys.readouterr().out


class StopsAt(Callback):
    """Sends this process a signal in the middle of a step."""

    def __init__(self, step: int, number: int = signal.SIGTERM) -> None:
        self.step, self.number = step, number

    def on_before_backward(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


def final_weights(run_folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)
    return weights["state_dict"]  # type: ignore[return-value]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_exits_and_resuming_gives_the_same_weights(
    path: str, root: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    before = signal.getsignal(number)
    longer = ["fit", "--config", path, "--trainer.max_steps", "5"]
    run(*longer)
    stop = f"[{{class_path: {__name__}.StopsAt, init_args: {{step: 1, number: {int(number)}}}}}]"
    with pytest.raises(SystemExit) as ended:
        main([*longer, "--trainer.callbacks", stop])
    assert ended.value.code == 128 + number
    assert signal.getsignal(number) is before
    interrupted = root / "tiny" / "version_1"
    said = capsys.readouterr().err
    assert f"stopped after step 2; saved in {interrupted}/checkpoints/last.ckpt" in said
    assert f"to continue: python -m lit_sft fit --resume {interrupted}" in said
    run("fit", "--resume", "--run.root", str(root), "--trainer.callbacks", "null")
    straight, resumed = (final_weights(root / "tiny" / f"version_{n}") for n in range(2))
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert not (root / "tiny" / "version_2").exists()
    steps = [json.loads((root / "tiny" / f"version_{n}" / "fit.json").read_text())["steps"] for n in range(2)]
    assert steps == [5, 5]


def test_resume_skips_a_broken_checkpoint_with_a_message(
    path: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", "--config", path)
    checkpoints = root / "tiny" / "version_0" / "checkpoints"
    whole = (checkpoints / "last.ckpt").read_bytes()
    (checkpoints / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    run("fit", "--resume", str(checkpoints.parent), "--trainer.max_steps", "4")
    said = capsys.readouterr().out
    assert f"skipping {checkpoints / 'last.ckpt'}: it cannot be read" in said
    assert "its config.yaml and best.ckpt" in said
    (checkpoints / "best.ckpt").write_bytes(b"")
    (checkpoints / "last.ckpt").write_bytes(b"")
    assert main(["fit", "--resume", str(checkpoints.parent)]) == 2
    assert (
        "no intact checkpoint (best.ckpt, last.ckpt: damaged, truncated or not a checkpoint of a run). Run `fit` again."
        in capsys.readouterr().err
    )
    best = checkpoints / "best.ckpt"
    assert main(["test", str(checkpoints.parent)]) == 2
    assert f"lit_sft test: {best}: damaged" in capsys.readouterr().err  # the user named the run
    assert main(["test", str(best)]) == 2
    assert f"lit_sft test: {best}: damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["test", "--resume", "RUN"], "--resume: only for `fit`; name the run itself: `python -m lit_sft test RUN`"),
        (["test", "RUN", "--ckpt_path", "x.ckpt"], "--ckpt_path: the run already determines the checkpoint"),
        (["validate", "RUN", "--ckpt_path=null"], "--ckpt_path: the run already determines the checkpoint"),
        (["fit", "--resume", "RUN", "--ckpt_path", "x.ckpt"], "--ckpt_path: a resumed run continues from its newest"),
    ],
)
def test_options_that_would_mix_two_runs_are_refused(
    arguments: list[str], message: str, path: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", "--config", path)
    folder = root / "tiny" / "version_0"
    before = sorted(root.rglob("*"))
    assert main([str(folder) if argument == "RUN" else argument for argument in arguments]) == 2
    assert message in capsys.readouterr().err
    assert sorted(root.rglob("*")) == before


def test_curves_are_offered_only_if_there_are_any(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("fit", "--config", path, "--trainer.logger", "false")
    assert "tensorboard" not in capsys.readouterr().out
    run("fit", "--config", path)
    assert "curves  tensorboard --logdir" in capsys.readouterr().out


def test_resuming_with_more_steps_continues_but_another_mask_is_refused(
    path: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", "--config", path)
    folder = str(root / "tiny" / "version_0")
    run("fit", "--resume", folder, "--trainer.max_steps", "3")
    assert json.loads((Path(folder) / "fit.json").read_text())["steps"] == 3
    assert main(["fit", "--resume", folder, "--data.mask", "whole_sequence"]) == 2
    assert '--data.mask was "output_only" and is now "whole_sequence"' in capsys.readouterr().err
    run("fit", f"--resume={folder}", "--trainer.max_steps", "4")  # the refused command has changed nothing
    assert yaml.safe_load((Path(folder) / "config.yaml").read_text())["data"]["mask"] == "output_only"
    assert json.loads((Path(folder) / "fit.json").read_text())["before"]


def test_deleting_a_data_file_during_training_has_no_effect(path: str, root: Path) -> None:
    vanish = "[{class_path: tests.lit_sft.cli.test_resuming_commands.Vanishes, init_args: {file: ROWS}}]"
    rows = Path(path).parent / "rows.jsonl"
    run("fit", "--config", path, "--trainer.callbacks", vanish.replace("ROWS", str(rows)))
    assert not rows.exists()
    assert (root / "tiny" / "version_0" / "checkpoints" / "last.ckpt").exists()


class Vanishes(Callback):
    """Removes a file in the first step."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_train_batch_start(self, *_: Any) -> None:
        self.file.unlink(missing_ok=True)


def test_run_is_resumed_under_any_name_and_reports_if_already_finished(
    path: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", "--config", path)
    moved = root.parent / "elsewhere" / "my run"
    shutil.copytree(root / "tiny" / "version_0", moved)
    capsys.readouterr()
    run("fit", "--resume", str(moved))
    said = capsys.readouterr().out
    assert "nothing left to do after step 2: max_steps reached; to continue, raise --trainer.max_steps\n" in said
    modes = {file.stat().st_mode & 0o777 for file in (moved / "model").iterdir()}
    assert len(modes) == 1


def test_last_checkpoint_is_from_the_last_step_even_if_another_was_better(path: str, root: Path) -> None:
    every_step = ["--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", "1"]
    run("fit", "--config", path, "--trainer.max_steps", "5", "--model.optimizer.lr", "3.0", *every_step)
    folder = root / "tiny" / "version_0" / "checkpoints"
    steps = {name: torch.load(folder / f"{name}.ckpt", weights_only=True)["global_step"] for name in ("best", "last")}
    assert steps["best"] < steps["last"] == 5


@pytest.mark.parametrize("command", ["fit", "test", "export", "preview"])
def test_relative_model_paths_are_refused_elsewhere_without_asking_the_hub(
    command: str,
    config: dict[str, Any],
    root: Path,
    write: Write,
    tokenizer_folder: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, elsewhere = root.parent / "start", root.parent / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(tokenizer_folder, start / "own" / "tokens")
    config["model"]["backbone"]["tokenizer"] = "own/tokens"
    path = shutil.move(write("tiny.yaml", yaml.safe_dump(config)), start / "tiny.yaml")
    monkeypatch.chdir(start)
    run("fit", "--config", str(path))
    monkeypatch.chdir(elsewhere)
    folder = str(root / "tiny" / "version_0")
    assert main(["fit", "--config", str(path)] if command == "fit" else [command, folder]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "own/tokens" in message
    assert str(start) in message
    assert "connection" not in message


def test_predict_without_prompts_names_the_test_split(
    path: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", "--config", path)
    run("predict", str(root / "tiny" / "version_0"))
    assert "no --data.predict, so these are answers to the test split" in capsys.readouterr().out
