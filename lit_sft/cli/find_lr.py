"""`python -m lit_sft find-lr`: suggests a learning rate from a short range test on the training data."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveInt
from lightning.pytorch import seed_everything
from lightning.pytorch.strategies import SingleDeviceStrategy
from matplotlib.figure import Figure

from data_modules.errors import UserError
from lit_sft.console import print_line, quieten
from lit_sft.files import write_json
from lit_sft.reporting.pictures import save_picture
from lit_sft.runs.model_paths import check_model_paths
from lit_sft.runs.requests import names_config
from lit_sft.runs.session import check_settings
from lit_sft.settings.arguments import in_long_form
from lit_sft.settings.data_modules import DataModuleName, data_module_of
from lit_sft.settings.options import training_parser
from lit_sft.settings.parser import SettingsParser
from lit_sft.settings.reading import Settings, parse_settings
from lit_sft.training.lr_range import Point, RangeTest, Suggestion, smoothed, suggest

_USAGE = """python -m lit_sft find-lr --config FILE ... [--min_lr LR] [--max_lr LR] [--steps NUM]
                                 [--output DIR] [--SETTING VALUE ...]"""

_FEWEST_STEPS = 20


def main(argv: list[str]) -> int:
    """Run a range test, write its points and picture, and print the suggestion.

    Args:
        argv: The command's name and its arguments.

    Returns:
        0; 1 if the test shows no learning rate.

    Raises:
        UserError: If a setting is wrong, or cannot be tested.
    """
    arguments = in_long_form(argv[1:])
    if not names_config(arguments):
        raise UserError("find-lr needs the config that you will train with: `--config FILE`.")
    settings = parse_settings(arguments, parser=_parser(data_module_of(arguments)), reads_trainer_classes=True)
    options = settings.config
    folder = _new_folder(options.output, options.run.root)
    quieten("fit")
    print_line(f"find-lr: up to {options.steps} steps, from {options.min_lr:g} to {options.max_lr:g}")
    points = run_range_test(settings, options.min_lr, options.max_lr, options.steps)
    suggestion = suggest(points, options.steps)
    _write(folder, settings, points, suggestion)
    print_line(f"points  {folder / 'points.json'}, {folder / 'points.png'}")
    if suggestion.lr is None:
        print_line(f"no suggestion: {suggestion.reason}")
        return 1
    print_line(f"reason  {suggestion.reason}")
    print_line(f"use     --model.optimizer.lr {suggestion.lr:g}")
    return 0


def run_range_test(settings: Settings, min_lr: float, max_lr: float, steps: int) -> list[Point]:
    """Train for some steps while the learning rate grows. Nothing is saved.

    Args:
        settings: Of the run; its schedule, length, callbacks, loggers and validations do not apply.
        min_lr: Learning rate of the first step.
        max_lr: Learning rate of the last step.
        steps: Optimiser steps, at least 20.

    Returns:
        A point for each step; fewer if the loss diverged.

    Raises:
        UserError: If a setting is wrong, or cannot be tested.
    """
    _check(settings, min_lr, max_lr, steps)
    seed_everything(settings.seed, workers=True, verbose=False)
    test = RangeTest(min_lr, max_lr, steps)
    data, model = settings.data_module(), settings.model()
    ours = {"max_steps": steps, "max_epochs": -1, "min_steps": None, "min_epochs": None, "max_time": None}
    trainer = settings.trainer(
        callbacks=[test],
        logger=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        fast_dev_run=False,
        **ours,
    )
    if trainer.world_size > 1 or not isinstance(trainer.strategy, SingleDeviceStrategy):
        raise UserError(
            "find-lr runs on one device; add `--trainer.devices 1 --trainer.strategy auto`, and multiply "
            "--data.batch_size (or --trainer.accumulate_grad_batches) by the number of devices you will train on."
        )
    trainer.fit(model, datamodule=data)
    return test.points


def _check(settings: Settings, min_lr: float, max_lr: float, steps: int) -> None:
    config = settings.config
    check_model_paths(settings)
    check_settings(config, "fit")
    if config.ckpt_path or config.get("resume"):
        raise UserError("find-lr tests the weights that the config starts from; leave out --ckpt_path and --resume.")
    if not 0 < min_lr < max_lr < math.inf:
        raise UserError(f"--min_lr {min_lr:g}, --max_lr {max_lr:g}: expected two positive rates, the lower one first.")
    if steps < _FEWEST_STEPS:
        raise UserError(f"--steps {steps}: expected at least {_FEWEST_STEPS}.")


def _parser(data_module: DataModuleName) -> SettingsParser:
    parser = training_parser(prog="python -m lit_sft find-lr", data_module=data_module)
    parser.usage = _USAGE
    parser.description = (
        "Suggest a peak learning rate: train for some steps while the rate grows, and see where the loss is lowest. "
        "Writes a picture and the points; no weights and no run folder."
    )
    parser.epilog = "All other options are those of `fit`."
    group = parser.add_argument_group("The test")
    groups: Any = parser._action_groups  # --help lists groups in this order
    groups.insert(0, groups.pop(groups.index(group)))
    group.add_argument("--min_lr", type=float, default=1e-6, help="Learning rate of the first step.")
    group.add_argument("--max_lr", type=float, default=1.0, help="Learning rate of the last step.")
    group.add_argument("--steps", type=PositiveInt, default=100, help="Optimiser steps.")
    group.add_argument(
        "--output", type=str, metavar="DIR", help="Folder to write to, new or empty. Default: RUN.ROOT/find-lr/test_N."
    )
    return parser


def _new_folder(output: str | None, root: str) -> Path:
    """The folder to write to, which is created at the end.

    Raises:
        UserError: If it exists and is not an empty folder.
    """
    above = Path(root) / "find-lr"
    taken = [int(path.name[5:]) for path in above.glob("test_*") if path.name[5:].isdecimal()]
    folder = Path(output) if output else above / f"test_{max(taken, default=-1) + 1}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--output {folder}: exists and is not an empty folder; name another.")
    return folder


def _write(folder: Path, settings: Settings, points: list[Point], suggestion: Suggestion) -> None:
    options = settings.config
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / "points.json",
        {
            "suggestion": suggestion.lr,
            "reason": suggestion.reason,
            "configs": [str(file) for file in options.config or []],
            "optimizer": options.model.optimizer.name,
            "batch_size": options.data.batch_size * options.trainer.accumulate_grad_batches,
            "seed": settings.seed,
            "steps": options.steps,
            "points": [asdict(point) for point in points],
        },
    )
    _draw([point for point in points if math.isfinite(point.change)], suggestion, options.steps, folder / "points.png")


def _draw(points: list[Point], suggestion: Suggestion, steps: int, path: Path) -> None:
    figure = Figure(figsize=(7, 4))
    axis = figure.subplots()
    rates, changes = [point.lr for point in points], smoothed(points, steps)
    axis.plot(rates, [point.change for point in points], ".", color="tab:gray", markersize=4, label="each step")
    axis.plot(rates, changes, color="tab:blue", label="mean of neighbouring steps")
    if suggestion.lr is not None:
        axis.axvline(suggestion.lr, color="tab:green", linestyle="--", label=f"suggestion: {suggestion.lr:g}")
    axis.set_xscale("log")
    fall = max(0.1, -min(changes, default=0.0))
    axis.set_ylim(-1.2 * fall, fall)  # what follows the divergence would squeeze the rest
    axis.set_xlabel("learning rate")
    axis.set_ylabel("loss, less that of the initial weights")
    axis.legend()
    save_picture(figure, path)
