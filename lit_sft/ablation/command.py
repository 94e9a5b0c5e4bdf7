"""`python -m lit_sft ablate --config FILE`: runs a study and writes its report."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from data_modules.errors import UserError
from data_modules.progress import duration
from lit_sft.ablation.budget import Plan, make_plan
from lit_sft.ablation.ray_tasks import run_on_ray
from lit_sft.ablation.run_study import define_trials, run_study
from lit_sft.ablation.runner import Runner
from lit_sft.ablation.study import Study, check_base, read_study
from lit_sft.ablation.study_report import write_report
from lit_sft.ablation.trials import TrialFiles
from lit_sft.console import cell, console, print_line, quieten
from lit_sft.failures import reason_in
from lit_sft.files import read_json, write_text
from lit_sft.own_packages import program
from lit_sft.settings.arguments import Arguments
from lit_sft.yaml_loader import load_yaml

_TIMED_STEPS = 4
_UNITS_OF_WORK = (("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6))


def main(argv: list[str]) -> None:
    """Run a study.

    Args:
        argv: The command's name and its arguments.

    Raises:
        UserError: If the study or its baseline is wrong.
    """
    options = _parser().parse_args(argv[1:])
    quieten("ablate")
    if options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: expected at least 1.")
    study = _study(options)
    trials = [TrialFiles(study, trial) for trial in study.trials(Path(options.root))]
    if options.only is not None and not 0 <= options.only < len(trials):
        raise UserError(f"--only {options.only}: the study has trials 0 to {len(trials) - 1}.")
    chosen = trials if options.only is None else [trials[options.only]]
    if options.dry_run:
        plan = make_plan(study)
        _check_arms(plan, options.config)
        _show_plan(study, plan, trials)
        return
    if options.slurm or options.ray or options.only is not None:
        plan, folder = make_plan(study), Path(options.root) / study.name
        define_trials(study, plan, chosen, folder, retry=options.retry)
        if options.slurm:
            print_line(f"written {_write_slurm(folder, options, len(trials))}; submit it with `sbatch`")
            return
        if options.ray:
            _run_on_ray(options, trials)
        else:
            Runner(chosen, plan, options.jobs, console).run()
        if options.only is None:
            write_report([folder], console=console)
    else:
        run_study(study, options.root, jobs=options.jobs, retry=options.retry)
    if not all(files.is_done for files in chosen):
        raise SystemExit(1)


def _study(options: argparse.Namespace) -> Study:
    """Read the study, with the settings of `--set`."""
    study = read_study(options.config)
    changes = dict(map(_setting, options.set))
    study = replace(study, settings={**study.settings, **changes})
    if idle := [name for name in changes if all(name in arm.settings for arm in study.all_arms())]:
        raise UserError(f"--set {idle[0]}: every arm of the study sets it; edit the study file instead.")
    check_base(study, options.config)
    return study


def _run_on_ray(options: argparse.Namespace, trials: list[TrialFiles]) -> None:
    """Run every trial that is not done as a task of its own."""
    open_trials = {i: files for i, files in enumerate(trials) if not (files.is_done or files.failure())}
    commands = {
        files.trial.name: [*_command(options, sys.executable), "--only", str(i)] for i, files in open_trials.items()
    }
    run_on_ray(commands, options.ray, options.jobs, print_line)


def _setting(text: str) -> tuple[str, Any]:
    name, is_given, value = text.partition("=")
    if not is_given or not name:
        raise UserError(f"--set {text}: expected NAME=VALUE, such as data.train=rows.json.")
    return name.removeprefix("--"), load_yaml(value, f"--set {text}")[0]


def _check_arms(plan: Plan, path: str) -> None:
    """Refuse a plan with invalid arms, which a study would leave out.

    Raises:
        UserError: If an arm's settings are invalid; names the study's file, the first such arm, and the others.
    """
    if plan.failures:
        (arm, reason), *others = plan.failures.items()
        more = f" Also invalid: {', '.join(f'“{name}”' for name, _ in others)}." if others else ""
        raise UserError(f"{path}: arm “{arm}”: {reason}{more}")


def _show_plan(study: Study, plan: Plan, trials: list[TrialFiles]) -> None:
    """Print the trials with their cost, the estimated time, and the commands."""
    with console.status(f"timing {_TIMED_STEPS} steps of the baseline"):
        overhead, per_flop = _timed(trials[0], plan)
    table = Table(title=cell(f"{study.name}: {study.question}"), title_justify="left")
    unit, size = _unit_of_work(plan)
    for name in ("trial", "steps", "examples", "tokens", "supervised", unit, "about"):
        table.add_column(name, justify="left" if name == "trial" else "right")
    total = 0.0
    for files in trials:
        amounts = plan.amounts[files.trial.arm.name, files.trial.seed]
        seconds = overhead + per_flop * amounts.flops
        total += 0 if files.is_done else seconds
        counts = (amounts.steps, amounts.examples, amounts.tokens, amounts.supervised_tokens)
        about = "done" if files.is_done else duration(seconds)
        table.add_row(cell(files.trial.name), *(f"{n:,}" for n in counts), f"{amounts.flops / size:,.1f}", about)
    console.print(table)
    console.print(
        f"about {duration(total)} in total if run one at a time, assuming that validation and answering take as "
        "long in every trial as in the first"
    )
    for files in trials:
        for command in [] if files.is_done else files.commands(plan):
            print_line(shlex.join(command))


def _unit_of_work(plan: Plan) -> tuple[str, float]:
    """The unit in which the smallest trial does not round to zero, and how many operations it is."""
    least = min(amounts.flops for amounts in plan.amounts.values())
    return next((unit for unit in _UNITS_OF_WORK if least >= unit[1]), _UNITS_OF_WORK[-1])


def _timed(files: TrialFiles, plan: Plan) -> tuple[float, float]:
    """Seconds of overhead per trial, and training seconds per floating-point operation."""
    key = files.trial.arm.name, files.trial.seed
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*files.arguments(plan), "--run.root", folder, "--run.name", "timed"]
        command = [*program(), "fit", *arguments, "--trainer.max_steps", str(_TIMED_STEPS)]
        began = os.times().elapsed
        done = subprocess.run(command, capture_output=True, text=True)
        elapsed = os.times().elapsed - began
        record = read_json(Path(folder) / "timed" / "version_0" / "trial.json")
    if done.returncode or record is None:
        raise UserError(f"{files.trial.arm.name}: the baseline fails: {reason_in(done.stderr)}")
    per_flop = record["seconds"] / record["step"] * plan.amounts[key].steps / plan.amounts[key].flops
    return 2 * (elapsed - record["seconds"]), per_flop


def _write_slurm(folder: Path, options: argparse.Namespace, num_trials: int) -> Path:
    script = folder / "slurm.sh"
    write_text(
        script,
        "#!/bin/bash\n"
        "# One array task per trial. Add what your cluster needs: partition, account, time, GPUs.\n"
        f"#SBATCH --job-name={folder.name}\n"
        f"#SBATCH --array=0-{num_trials - 1}%{options.jobs}\n"
        f"#SBATCH --output={folder}/slurm-%a.txt\n"
        f"cd {shlex.quote(str(Path.cwd()))}\n"
        f"{shlex.join(_command(options, sys.executable))} --only $SLURM_ARRAY_TASK_ID\n"
        f"# when all are done: python -m lit_sft report {shlex.quote(str(folder))}\n",
    )
    return script


def _command(options: argparse.Namespace, python: str) -> list[str]:
    """The study's command without the options on how to run it."""
    sets = [argument for setting in options.set for argument in ("--set", setting)]
    return [python, "-m", "lit_sft", "ablate", "--config", options.config, "--root", options.root, *sets]


def _parser() -> Arguments:
    parser = Arguments("ablate", __doc__, example="--config configs/ablation/loss_masks.yaml")
    parser.add_argument("--config", required=True, help="study file, such as configs/ablation/loss_masks.yaml")
    parser.add_argument("--root", default="runs", help="folder that holds all studies")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of `fit` for all trials; repeatable",
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="trials to run at once; each gets a share of the threads, or a GPU"
    )
    parser.add_argument("--retry", action="store_true", help="run failed trials again")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, its cost and the commands; run nothing")
    parser.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster; `local` starts one here")
    parser.add_argument("--slurm", action="store_true", help="write a job array script instead of running")
    parser.add_argument("--only", type=int, metavar="N", help="run only trial N, counted from 0, without a report")
    return parser
