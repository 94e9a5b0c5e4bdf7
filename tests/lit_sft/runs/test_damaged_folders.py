"""Commands on the folders of runs: damaged, copied, in use, stopped early; each error is one line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lit_sft.__main__ import main
from lit_sft.runs.lock import lock_run
from tests.conftest import MODELS, alpaca_rows, byte_tokenizer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs that early stopping ended."""
    root = tmp_path_factory.mktemp("trained")
    byte_tokenizer().save_pretrained(root / "tokenizer")
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in alpaca_rows(12)))
    stop = {
        "class_path": "lightning.pytorch.callbacks.EarlyStopping",
        "init_args": {"monitor": "val/loss", "patience": 1, "min_delta": 100.0},
    }
    config = {
        "seed_everything": 1,
        "model": {
            "backbone": {"config": MODELS["gpt2"], "tokenizer": str(root / "tokenizer")},
            "generation": {"max_new_tokens": 2},
        },
        "data": {
            "train": str(root / "rows.jsonl"), "val_fraction": 0.2, "test_fraction": 0.2, "template": "chatml",
            "cache_dir": str(root / "cache"),
        },
        "trainer": {"max_epochs": 6, "accelerator": "cpu", "enable_progress_bar": False, "callbacks": [stop]},
        "run": {"root": str(root / "runs"), "name": "tiny"},
    }  # fmt: skip
    (root / "tiny.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(root / "tiny.yaml")]) == 0
    return root / "runs" / "tiny" / "version_0"


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, elsewhere."""
    folder = tmp_path / "copied"
    shutil.copytree(trained, folder)
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    change(config)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def steps(folder: Path) -> int:
    return int(json.loads((folder / "fit.json").read_text())["steps"])


def test_resuming_a_run_that_was_stopped_early_trains_nothing_and_says_why(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, weights = steps(copy), (copy / "checkpoints" / "last.ckpt").read_bytes()
    assert main(["fit", "--resume", str(copy)]) == 0
    said = capsys.readouterr().out
    assert re.search(
        rf"nothing left to do after step {before}: EarlyStopping: val/loss did not improve on [\d.]+ in 1 "
        r"validation \(patience 1\); to continue, loosen EarlyStopping or remove it \(`trainer\.callbacks` in the",
        said,
    )
    assert (copy / "checkpoints" / "last.ckpt").read_bytes() == weights

    def loosen(config: dict[str, Any]) -> None:
        config["trainer"]["callbacks"][0]["init_args"]["patience"] = 2

    edit(copy, loosen)
    assert main(["fit", "--resume", str(copy)]) == 0
    assert steps(copy) == before // 2 * 3
    assert f"stopped early at step {before // 2 * 3}: EarlyStopping: val/loss did not" in capsys.readouterr().out


def test_commands_print_which_checkpoint_they_use_and_why(
    trained: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = json.loads((copy / "checkpoints" / "best.json").read_text())["checkpoints"][0]
    why = f"best val/loss {best['score']:.6g}, step {best['step']}"
    assert main(["export", str(copy)]) == 0
    assert f"best.ckpt ({why}) -> {copy / 'model'}" in capsys.readouterr().out
    assert main(["validate", str(copy)]) == 0
    assert f"its config.yaml and best.ckpt ({why})" in capsys.readouterr().out
    (copy / "checkpoints" / "best.ckpt").unlink()
    assert main(["export", str(copy)]) == 0
    assert "last.ckpt (the last step; best.ckpt, the best, is missing)" in capsys.readouterr().out
    assert main(["export", str(copy / "checkpoints" / "last.ckpt"), "--output", str(copy / "out")]) == 0


def test_run_in_use_is_neither_resumed_nor_exported(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    with lock_run(copy):
        for command in (["fit", "--resume", str(copy)], ["export", str(copy)]):
            assert main(command) == 2
            said = capsys.readouterr().err.splitlines()
            begin = f"lit_sft {command[0]}: {copy}: in use by process "
            assert re.match(re.escape(begin) + r"\d+ on .*, since ", said[-1])
        assert main(["export", str(copy), "--output", str(tmp_path / "out")]) == 0  # reading is allowed
    assert before == {path: path.stat().st_mtime_ns for path in copy.rglob("*")}


def test_a_refused_start_leaves_neither_folder_nor_lock(trained: Path, tmp_path: Path) -> None:
    config = str(trained.parents[2] / "tiny.yaml")
    for option in (["--checkpoint.dirpath", "/elsewhere"], ["--data.train", "nowhere.json"]):
        assert main(["fit", "--config", config, "--run.root", str(tmp_path / "new"), *option]) == 2
        assert not list((tmp_path / "new").rglob("version_*"))
    assert not (trained / "run.lock").exists()


def foreign(folder: Path, content: Any) -> None:
    for name in ("best", "last"):
        torch.save(content, folder / "checkpoints" / f"{name}.ckpt")


def replaced(path: Path, content: bytes | None) -> None:
    """Replace a file or folder by a file; None: by a broken link."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to("nowhere") if content is None else path.write_bytes(content)


def damage_links(folder: Path) -> None:
    for name in ("best.ckpt", "last.ckpt"):
        replaced(folder / "checkpoints" / name, None)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda f: (f / "config.yaml").unlink(), r"config\.yaml: missing"),
    "empty config": (lambda f: replaced(f / "config.yaml", b""), "config.yaml: contains no settings"),
    "binary config": (lambda f: replaced(f / "config.yaml", bytes(range(256))), "config.yaml: no"),
    "list as config": (lambda f: replaced(f / "config.yaml", b"- 1\n"), "config.yaml: contains no settings"),
    "dangling config": (lambda f: replaced(f / "config.yaml", None), r"config\.yaml: missing"),
    "file for checkpoints": (lambda f: replaced(f / "checkpoints", b"x"), "checkpoints: (expected a folder|no checkp)"),
    "no checkpoints": (lambda f: shutil.rmtree(f / "checkpoints"), "checkpoints: no checkpoint"),
    "dangling checkpoints": (damage_links, "best.ckpt, last.ckpt: (broken links|damaged)"),
    "of another project": (
        lambda f: foreign(
            f, {"state_dict": {"w": torch.ones(2)}, "pytorch-lightning_version": "2.6.0", "global_step": 1, "epoch": 0}
        ),
        "belong to another model|not a checkpoint of a run",
    ),
    "not written by Lightning": (
        lambda f: foreign(f, {"state_dict": {"w": torch.ones(2)}}),
        "not a checkpoint of a run|belong to another model",
    ),
    "bare weights": (lambda f: foreign(f, {"w": torch.ones(2)}), "not a checkpoint of a run"),
    "a tensor": (lambda f: foreign(f, torch.ones(2)), "not a checkpoint of a run"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_run_folder_ends_in_one_line(
    trained: Path, copy: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, message = DAMAGE[what]
    damage(copy)
    for command in (["test"], ["export"], ["predict"], ["fit", "--resume"]):
        assert main([*command, str(copy)]) == 2
        said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("Seed set to")]
        assert len(said) == 1, said
        assert re.search(message, said[0]), (command, said)
