"""Run a study from Python: every trial that is not done, then the report."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from data_modules.errors import UserError
from lit_sft.ablation.budget import Plan, make_plan
from lit_sft.ablation.runner import Runner
from lit_sft.ablation.study import Study
from lit_sft.ablation.study_report import write_report
from lit_sft.ablation.trials import TrialFiles
from lit_sft.console import console as terminal
from lit_sft.files import write_json


def run_study(
    study: Study, root: str | Path = "runs", *, jobs: int = 1, retry: bool = False, console: Console | None = None
) -> Path:
    """Run every trial of a study that is not done, and write the report.

    Example:
        >>> study = read_study("configs/ablation/loss_masks.yaml")  # doctest: +SKIP
        >>> run_study(study, jobs=2)  # doctest: +SKIP
        PosixPath('runs/loss_masks/report.html')

    Args:
        study: As `read_study` reads it, or made in Python.
        root: Folder of all studies; this one gets `<root>/<study.name>`.
        jobs: Trials at once.
        retry: Run failed trials again.
        console: Where to print progress and the answer. None: the terminal.

    Returns:
        The report's page. A trial that fails does not stop the others; the report lists it.

    Raises:
        UserError: If the study contradicts what has already been run, its baseline is wrong, or no trial succeeds.
    """
    if jobs < 1:
        raise UserError(f"jobs {jobs}: expected at least 1.")
    plan, folder = make_plan(study), Path(root) / study.name
    trials = [TrialFiles(study, trial) for trial in study.trials(Path(root))]
    define_trials(study, plan, trials, folder, retry=retry)
    Runner(trials, plan, jobs, console or terminal).run()
    return write_report([folder], console=console or terminal)


def define_trials(study: Study, plan: Plan, trials: list[TrialFiles], folder: Path, *, retry: bool) -> None:
    """Record the definitions of trials before they run.

    Args:
        study: The study.
        plan: The length of each of its trials.
        trials: Trials to run; on a cluster, only one.
        folder: The study's folder.
        retry: Whether failed trials will run again.

    Raises:
        UserError: If a trial has run with different settings or data.
    """
    for files in trials:
        _prepare(files, plan, retry=retry)
    _write_study(folder, study, plan)  # last, once no trial's definition contradicts an earlier run


def _write_study(folder: Path, study: Study, plan: Plan) -> None:
    """Write study.json, which holds what the report needs to know about the study."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = study.budget.equal
    reached = sorted({float(getattr(amounts, kind)) for amounts in plan.amounts.values()})
    asked = study.budget.amount or reached[0]
    budget = f"equal {kind.replace('_', ' ')}: {_amount(kind, asked)} per trial"
    if reached != [asked]:
        ends = dict.fromkeys(_amount(kind, each) for each in (reached[0], reached[-1]))
        budget += f"; {' to '.join(ends)} after rounding to whole steps"
    trials = study.trials(folder.parent)
    write_json(
        folder / "study.json",
        {
            "question": study.question,
            "primary": study.primary,
            "budget": budget,
            "checkpoint": study.checkpoint,
            "arms": [arm.name for arm in study.all_arms()],
            "settings": {arm.name: {**study.settings, **arm.settings} for arm in study.all_arms()},
            "trials": [{"arm": t.arm.name, "seed": t.seed, "folder": t.folder.name} for t in trials],
        },
    )


def _amount(kind: str, amount: float) -> str:
    """A budget: flops in TFLOP, everything else as a whole number."""
    if kind != "flops":
        return f"{amount:,.0f}"
    return f"{amount / 1e12:,.1f} TFLOP" if amount >= 1e12 else f"{amount / 1e12:.3g} TFLOP"


def _prepare(files: TrialFiles, plan: Plan, *, retry: bool) -> None:
    """Record a trial's definition, and clear a failure that changed settings may have fixed."""
    reason = plan.failures.get(files.trial.arm.name)
    if reason is not None:
        files.record_failure(reason, by="plan")
        return
    files.define(plan, restart=retry and files.failure() is not None)
    files.clear_failure(include_runs=retry)
