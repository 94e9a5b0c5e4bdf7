"""Runs trials, several at once, each in its own subprocesses: one failure does not affect the others."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.live import Live
from rich.table import Table

from data_modules.errors import UserError
from data_modules.progress import duration
from lit_sft.ablation.budget import Plan
from lit_sft.ablation.trials import TrialFiles
from lit_sft.console import cell, print_line_on
from lit_sft.failures import reason_in
from lit_sft.printable import printable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

State = Literal["waiting", "running", "testing", "in another process", "done", "failed"]


@dataclass
class Job:
    """A trial to run.

    Attributes:
        files: The trial's files.
        state: `in another process`: another study is running it.
        slot: Index among the jobs that run at once.
        process: The subprocess that trains or tests, in its own session.
    """

    files: TrialFiles
    state: State = "waiting"
    slot: int = 0
    process: subprocess.Popen[bytes] | None = None


class Runner:
    """Runs the trials that are not done yet.

    Args:
        trials: Trials of the study.
        plan: Their lengths.
        jobs: Trials at once; each gets a share of the threads, or a GPU in turn.
        console: Shows the progress table, or a line per change if it is not a terminal.

    Raises:
        UserError: On Windows, where a process cannot inherit a lock.
    """

    def __init__(self, trials: list[TrialFiles], plan: Plan, jobs: int, console: Console) -> None:
        if fcntl is None:
            raise UserError("studies do not run on Windows, which has no locks that trials could inherit; use WSL.")
        self.jobs = [Job(files, _state_of(files)) for files in trials]
        self.plan, self.width, self.console = plan, jobs, console
        self.stopped: int | None = None

    def run(self) -> None:
        """Run until all trials are done or have failed.

        Raises:
            SystemExit: On Ctrl-C and SIGTERM, once the running trials have saved.
        """
        handlers = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with Live(console=self.console, get_renderable=self.table, refresh_per_second=2, transient=False) as live:
                live.auto_refresh = self.console.is_terminal
                while self.stopped is None and self._advance():
                    time.sleep(0.1)
            if not self.console.is_terminal:
                self.console.print()  # ends the table, which has no newline there
        finally:
            self._end()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self.stopped is not None:
            self.console.print("stopped; run the same command again to continue from the last checkpoints.")
            raise SystemExit(128 + self.stopped)

    def _advance(self) -> bool:
        """Check every job once; returns whether any is left."""
        for job in self.jobs:
            if job.process is not None and job.process.poll() is not None:
                self._ended(job)
            elif job.state in ("waiting", "in another process"):
                self._begin(job)
        return any(job.state not in ("done", "failed") for job in self.jobs)

    def _begin(self, job: Job) -> None:
        taken = {other.slot for other in self.jobs if other.process is not None}
        free = [slot for slot in range(self.width) if slot not in taken]
        if free:
            job.slot = free[0]
            self._start(job)

    def _start(self, job: Job) -> None:
        """Start or continue a trial, unless another process is running it."""
        job.files.trial.folder.mkdir(parents=True, exist_ok=True)
        with (job.files.trial.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # a killed study, whose trials still run
                self._enter(job, "in another process")
                return
            if job.files.is_done or job.files.failure():  # in the meantime
                self._enter(job, _state_of(job.files))
                return
            job.files.clear()
            command = job.files.command(self.plan)
            with job.files.log.open("ab") as log:
                log.write(f"\n$ {' '.join(command)}\n".encode())
                log.flush()
                # the child inherits the open file and so holds the lock as long as it lives
                job.process = subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=log,
                    env=self._environment(job.slot),
                    pass_fds=[lock.fileno()],
                    start_new_session=True,  # Ctrl-C reaches this process only, which then ends its children
                )
        self._enter(job, "testing" if command[3] == "test" else "running")

    def _ended(self, job: Job) -> None:
        assert job.process is not None
        status, job.process = job.process.returncode, None
        if job.files.is_done:
            self._enter(job, "done")
        elif status == 0 and job.state == "running" and job.files.is_trained:
            self._start(job)  # continues with the test
        else:
            job.files.record_failure(_reason(status, job.files.log))
            self._enter(job, "failed")

    def _enter(self, job: Job, state: State) -> None:
        if job.state != state and not self.console.is_terminal:
            reason = f": {job.files.failure()}" if state == "failed" else ""
            print_line_on(self.console, f"{job.files.trial.name}: {state}{reason}")
        job.state = state

    def _environment(self, slot: int) -> dict[str, str]:
        given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # may list nested levels
        available = int(given) if given.isdecimal() else os.cpu_count() or 1
        threads = max(1, available // self.width)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        count = torch.cuda.device_count()
        if count > 1:
            devices = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
            environment["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
        return environment

    def _stop(self, number: int, frame: Any) -> None:
        if self.stopped is not None:  # the second time, kill at once
            for job in self.jobs:
                if job.process is not None:
                    job.process.kill()
        self.stopped = number

    def _end(self) -> None:
        """Ask running trials to save and exit."""
        running = [job.process for job in self.jobs if job.process is not None]
        for process in running:
            process.terminate()
        for process in running:
            process.wait()

    def table(self) -> Table:
        """State and progress of every trial."""
        losses = {str(sorted(each for each in job.files.settings.items() if _is_of_loss(each[0]))) for job in self.jobs}
        own = "each arm has a training loss of its own, so do not compare them"
        caption = own if len(losses) > 1 else None
        table = Table(title="trials", title_justify="left", caption=caption, caption_justify="left")
        for name, justify in (
            ("trial", "left"),
            ("state", "left"),
            ("step", "right"),
            ("training loss", "right"),
            ("left", "right"),
        ):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        for job in self.jobs:
            progress = job.files.progress()
            step, of, loss = (progress.get(name) for name in ("step", "of", "train_loss"))
            left = _left(progress) if job.state == "running" else ""
            table.add_row(
                cell(job.files.trial.name, self.console),
                job.state,
                f"{step} of {of}" if step else "",
                f"{loss:.3f}" if isinstance(loss, float) else "",
                left,
            )
        return table


def _state_of(files: TrialFiles) -> State:
    return "done" if files.is_done else "failed" if files.failure() else "waiting"


def _left(progress: dict[str, Any]) -> str:
    """Time left; empty if unknown."""
    try:
        seconds = progress["seconds"] / progress["step"] * (progress["of"] - progress["step"])
    except (KeyError, TypeError, ArithmeticError):
        return ""
    return duration(seconds)


def _reason(status: int, log: Path) -> str:
    """Why a process failed, from its status and the end of its log."""
    if status < 0:
        name = signal.Signals(-status).name
        hint = ", usually out of memory" if -status == signal.SIGKILL else ""
        return f"killed by {name}{hint}; see {log}"
    text = log.read_text(encoding="utf-8", errors="replace")
    # the output of the latest start, without the line of its command
    latest = text[text.rfind("\n$ ") + 1 :].partition("\n")[2] if "\n$ " in text else text
    return f"{printable(reason_in(latest))} (see {log})"


def _is_of_loss(setting: str) -> bool:
    """Whether a setting changes what the training loss measures."""
    return setting.startswith("model.objective") or setting in (
        "data.mask",
        "data.prompt_weight",
        "data.answer_weight",
        "data.reduction",
    )
