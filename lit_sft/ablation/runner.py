"""Runs trials, so many at once, each in subprocesses of its own: one failure does not affect the others."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.live import Live
from rich.table import Table

from lit_sft.ablation.budget import Plan
from lit_sft.ablation.trials import TrialFiles
from lit_sft.console import cell, print_line_on
from lit_sft.printable import printable

State = Literal["waiting", "running", "testing", "elsewhere", "done", "failed"]


@dataclass
class Job:
    """A trial on its way.

    Attributes:
        files: Of the trial.
        state: `elsewhere`: another process is at it.
        slot: Which of the places for jobs it has.
        process: That trains or tests, in a session of its own.
    """

    files: TrialFiles
    state: State = "waiting"
    slot: int = 0
    process: subprocess.Popen[bytes] | None = None
    began: float = field(default_factory=time.monotonic)


class Runner:
    """Runs what is not done yet.

    Args:
        trials: All of the study's.
        plan: Their lengths.
        jobs: How many run at once; each has its share of the threads, or a GPU in turn.
        console: Where the table stands; a line for each change where it is no terminal.
    """

    def __init__(self, trials: list[TrialFiles], plan: Plan, jobs: int, console: Console) -> None:
        self.jobs = [Job(files, _state_of(files)) for files in trials]
        self.plan, self.width, self.console = plan, jobs, console
        self.stopped: int | None = None

    def run(self) -> None:
        """Run until all are done or failed.

        Raises:
            SystemExit: On Ctrl-C and SIGTERM, when the trials under way have saved.
        """
        handlers = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with Live(console=self.console, get_renderable=self.table, refresh_per_second=2, transient=False) as live:
                live.auto_refresh = self.console.is_terminal
                while self.stopped is None and self._advance():
                    time.sleep(0.1)
            if not self.console.is_terminal:
                self.console.print()  # which the table leaves out there
        finally:
            self._end()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self.stopped is not None:
            self.console.print("stopped; run the same command again to continue from the last checkpoints.")
            raise SystemExit(128 + self.stopped)

    def _advance(self) -> bool:
        """Look after every job once; whether any is left."""
        for job in self.jobs:
            if job.process is not None and job.process.poll() is not None:
                self._ended(job)
            elif job.state in ("waiting", "elsewhere"):
                self._begin(job)
        return any(job.state not in ("done", "failed") for job in self.jobs)

    def _begin(self, job: Job) -> None:
        taken = {other.slot for other in self.jobs if other.process is not None}
        free = [slot for slot in range(self.width) if slot not in taken]
        if free:
            job.slot = free[0]
            self._start(job)

    def _start(self, job: Job) -> None:
        """Start what is left of a trial, unless another process is at it."""
        job.files.trial.folder.mkdir(parents=True, exist_ok=True)
        with (job.files.trial.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # of a study that was killed, whose trials live on
                self._enter(job, "elsewhere")
                return
            if job.files.is_done or job.files.failure():  # by now
                self._enter(job, _state_of(job.files))
                return
            job.files.clear()
            command = job.files.command(self.plan)
            with job.files.log.open("ab") as log:
                log.write(f"\n$ {' '.join(command)}\n".encode())
                log.flush()
                # the child keeps the lock open, and with it locked, as long as it lives
                job.process = subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=log,
                    env=self._environment(job.slot),
                    pass_fds=[lock.fileno()],
                    start_new_session=True,  # Ctrl-C is for this process, which tells its children
                )
        self._enter(job, "testing" if command[3] == "test" else "running")

    def _ended(self, job: Job) -> None:
        assert job.process is not None
        status, job.process = job.process.returncode, None
        if job.files.is_done:
            self._enter(job, "done")
        elif status == 0 and job.state == "running" and job.files.is_trained:
            self._start(job)  # now it is tested
        else:
            job.files.fail(_reason(status, job.files.log))
            self._enter(job, "failed")

    def _enter(self, job: Job, state: State) -> None:
        if job.state != state and not self.console.is_terminal:
            reason = f": {job.files.failure()}" if state == "failed" else ""
            print_line_on(self.console, f"{job.files.trial.name}: {state}{reason}")
        job.state = state

    def _environment(self, slot: int) -> dict[str, str]:
        given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # it may list nested levels
        available = int(given) if given.isdecimal() else os.cpu_count() or 1
        threads = max(1, available // self.width)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        count = torch.cuda.device_count()
        if count > 1:
            devices = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
            environment["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
        return environment

    def _stop(self, number: int, frame: Any) -> None:
        if self.stopped is not None:  # the second time: at once
            for job in self.jobs:
                if job.process is not None:
                    job.process.kill()
        self.stopped = number

    def _end(self) -> None:
        """Ask what still runs to save and leave."""
        running = [job.process for job in self.jobs if job.process is not None]
        for process in running:
            process.terminate()
        for process in running:
            process.wait()

    def table(self) -> Table:
        """What every trial is doing."""
        table = Table(title="trials", title_justify="left")
        for name, justify in (
            ("trial", "left"),
            ("state", "left"),
            ("step", "right"),
            ("own training loss", "right"),
            ("left", "right"),
        ):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        for job in self.jobs:
            progress = job.files.progress()
            step, of, loss = (progress.get(name) for name in ("step", "of", "train_loss"))
            left = _left(progress) if job.state == "running" else ""
            table.add_row(
                cell(job.files.trial.name),
                job.state,
                f"{step} of {of}" if step else "",
                f"{loss:.3f}" if isinstance(loss, float) else "",
                left,
            )
        return table


def _state_of(files: TrialFiles) -> State:
    return "done" if files.is_done else "failed" if files.failure() else "waiting"


def _left(progress: dict[str, Any]) -> str:
    """Time left; nothing where that is not known."""
    try:
        seconds = progress["seconds"] / progress["step"] * (progress["of"] - progress["step"])
    except (KeyError, TypeError, ArithmeticError):
        return ""
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"


def _reason(status: int, log: Path) -> str:
    """Why a process ended, from its status and the end of its log."""
    if status < 0:
        name = signal.Signals(-status).name
        hint = ", usually out of memory" if -status == signal.SIGKILL else ""
        return f"killed by {name}{hint}; see {log}"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    starts = [index for index, line in enumerate(lines) if line.startswith("$ ")]
    lines = lines[starts[-1] + 1 :] if starts else lines  # of this start, not of those before
    said = [index for index, line in enumerate(lines) if line.startswith("lit_sft ")]
    reason = lines[said[-1]] if said else lines[-1] if lines else "it said nothing"
    return f"{printable(reason)} (see {log})"
