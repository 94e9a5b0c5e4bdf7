"""From text to a model that answers questions, on two CPU cores: `make from-scratch`.

    python examples/from_scratch.py

Writes articles about the village, trains a tokenizer, cleans the articles, pretrains a small GPT-2 on them, fine-tunes
from it and from random weights, evaluates all of them, and writes one page, runs/from_scratch/report.html. Run it from
the top folder of the repository. Each stage is one command, which is printed. After an interruption, run it
again: finished stages are skipped, and pretraining and the study continue where they stopped.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # lit_sft is beside this folder

from from_scratch_page import STUDY, write_page

from lit_sft.files import read_json, write_json

FOLDER = Path("runs/from_scratch")
RUN = FOLDER / "pretraining" / "version_0"
VOCAB_SIZE = 2048


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: What it does.
        command: Returns the command to run; called when all earlier stages are done.
    """

    name: str
    command: Callable[[], list[str]]


def lit_sft(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lit_sft", *arguments]


def pretrain(*changes: str) -> list[str]:
    """Pretrain, or continue an interrupted run."""
    if any((RUN / "checkpoints").glob("*.ckpt")):
        return lit_sft("fit", "--resume", str(RUN))
    if RUN.exists():  # killed before its first checkpoint: without it, the new run is version_0 again
        shutil.rmtree(RUN)
    place = ("--run.root", str(FOLDER), "--run.name", RUN.parent.name)
    return lit_sft("fit", "--config", "configs/pretrain/world.yaml", *place, *changes)


def evaluate() -> list[str]:
    trials = FOLDER / STUDY / "trials"
    models = {
        "base": RUN,
        "tuned": trials / "pretrained_train_fraction=1-seed0" / "version_0",
        "scratch": trials / "random_weights_train_fraction=1-seed0" / "version_0",
    }
    named = [f"{name}={folder}" for name, folder in models.items()]
    output = ("--output", str(FOLDER / "evaluation"))
    return lit_sft("evaluate", "--models", *named, "--suite", "configs/evaluate/from_scratch.yaml", *output)


def quick_study() -> str:
    """The study with one share of the examples, two seeds and three steps."""
    study = yaml.safe_load(Path("configs/ablation/from_scratch.yaml").read_text(encoding="utf-8"))
    study |= {"seeds": [0, 1], "axes": {"data.train_fraction": [1.0, 0.3]}, "answers": 12}
    study["budget"]["amount"] = 3
    study["settings"]["data.batch_size"] = 2
    path = FOLDER / "quick.yaml"
    path.write_text("# a few steps, to check that every stage runs\n" + yaml.safe_dump(study), encoding="utf-8")
    return str(path)


def stages(*, is_quick: bool) -> list[Stage]:
    """All stages, in order.

    Args:
        is_quick: Whether to take only a few training steps, to check that every stage runs.
    """
    articles, tokenizer = FOLDER / "articles", FOLDER / "tokenizer"
    train = ["tokenizer", "train", str(articles / "train"), "--vocab_size", str(VOCAB_SIZE)]
    few_steps = ["--trainer.max_steps", "4", "--trainer.val_check_interval", "2"] if is_quick else []
    study = quick_study if is_quick else lambda: "configs/ablation/from_scratch.yaml"
    return [
        Stage("write the articles", lambda: [sys.executable, "examples/build_articles.py", str(articles)]),
        Stage(
            "train the tokenizer",
            lambda: lit_sft(*train, "--pre_tokenizer", "gpt2_han", "--output", str(tokenizer), "--overwrite"),
        ),
        Stage("clean, encode and pretrain", lambda: pretrain(*few_steps)),
        Stage("test on held-out articles", lambda: lit_sft("test", str(RUN))),
        Stage(
            "fine-tune and test",
            lambda: lit_sft("ablate", "--config", study(), "--root", str(FOLDER), "--jobs", "2"),
        ),
        Stage("evaluate", evaluate),
    ]


def run(stage: Stage, record: dict[str, Any]) -> None:
    """Run a stage, and record the time it took and whether it succeeded."""
    command, started = stage.command(), time.monotonic()
    print(f"\n== {stage.name}\n$ {' '.join(['python', *command[1:]])}", flush=True)
    status = subprocess.run(command, check=False).returncode
    seconds = record.get(stage.name, {}).get("seconds", 0.0) + time.monotonic() - started
    record[stage.name] = {"seconds": seconds, "is_done": status == 0, "command": command[1:]}
    write_json(FOLDER / "stages.json", record)
    if status:
        raise SystemExit(f"{stage.name}: failed with status {status}; run the same command again to continue.")


def check_same_size(*, is_quick: bool) -> None:
    """Refuse to mix stages with and without `--quick` in one folder."""
    mark = FOLDER / "quick"
    if FOLDER.exists() and mark.exists() != is_quick:
        holds = "results of --quick" if mark.exists() else "results without --quick"
        raise SystemExit(f"{FOLDER}: holds {holds}; delete or rename the folder first.")
    FOLDER.mkdir(parents=True, exist_ok=True)
    if is_quick:
        mark.touch()


def main() -> None:
    parser = argparse.ArgumentParser(description="From text to a model that answers questions, on two CPU cores.")
    parser.add_argument(
        "--quick", action="store_true", help="take only a few training steps, to check that every stage runs"
    )
    options = parser.parse_args()
    if not Path("configs/pretrain/world.yaml").is_file():
        raise SystemExit(f"{Path.cwd()}: no configs/ here; run this from the top folder of the repository.")
    check_same_size(is_quick=options.quick)
    record = read_json(FOLDER / "stages.json") or {}
    for stage in stages(is_quick=options.quick):
        if not record.get(stage.name, {}).get("is_done"):
            run(stage, record)
    print(f"\npage  {write_page(FOLDER)}  (open it in a browser)")


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH"))))
    main()
