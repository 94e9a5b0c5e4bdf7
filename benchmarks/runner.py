"""Runs contestants in separate processes that take turns, one step each."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.protocol import Settings

PEERS = Path(__file__).parent / "peers"
TOLERANCE = {"float32": 1e-5, "bf16": 2e-2}
"""Largest relative difference of first losses; for two precisions, the coarser one counts."""


@dataclass(frozen=True)
class Contestant:
    """A way to train.

    Attributes:
        name: Name on the command line.
        label: Name in tables.
        script: File in `peers/` that trains.
        variant: `default`, or tuned with rows `grouped` by length or packed (`flat`); for lit_sft also
            `unshared` or `padded`.
        environment: Name of a requirements file in `peers/`, without extension. None: this environment.
        groups_lengths: Whether its batches have rows of similar lengths. The warm-up batch is the same for all, so that
            losses can be compared.
    """

    name: str
    label: str
    script: str
    variant: str = "flat"
    environment: str | None = None
    groups_lengths: bool = False

    def ordered(self, lengths: list[int], batch_size: int, rounds: int) -> list[int]:
        """Indices of the rows to train on: the first ones, or batches of similar lengths from all rows.

        For the latter, rows are sorted and cut into batches, as trainers do in large windows of their data. One batch
        per round is chosen, evenly spaced from shortest to longest, in random order.
        """
        if not self.groups_lengths:
            return list(range((1 + rounds) * batch_size))
        pool = sorted(range(batch_size, len(lengths)), key=lambda index: lengths[index])
        count = len(pool) // batch_size
        places = [(2 * index + 1) * count // (2 * rounds) * batch_size for index in range(rounds)]
        random.Random(0).shuffle(places)
        return [*range(batch_size), *(row for place in places for row in pool[place : place + batch_size])]


CONTESTANTS = [
    Contestant("lit_sft", "lit_sft", "run_lit_sft.py"),
    Contestant("lit_sft_unshared", "lit_sft, nothing shared", "run_lit_sft.py", "unshared"),
    Contestant("lit_sft_padded", "lit_sft, padded", "run_lit_sft.py", "padded"),
    Contestant("hf_default", "HF Trainer, default", "run_hf_trainer.py", "default", "hf"),
    Contestant(
        "hf_grouped", "HF Trainer, tuned, similar lengths", "run_hf_trainer.py", "grouped", "hf", groups_lengths=True
    ),
    Contestant("hf_flat", "HF Trainer, tuned, no padding", "run_hf_trainer.py", "flat", "hf"),
    Contestant("trl_default", "TRL, default", "run_trl.py", "default", "trl"),
    Contestant("trl_grouped", "TRL, tuned, similar lengths", "run_trl.py", "grouped", "trl", groups_lengths=True),
    Contestant("trl_flat", "TRL, tuned, no padding", "run_trl.py", "flat", "trl"),
]


class ContestantError(Exception):
    """A contestant failed to start or crashed; the others continue."""


class Process:
    """A contestant's process, ready to run steps.

    Args:
        contestant: The contestant.
        settings: Its settings.
        python: The interpreter of its environment.
        folder: Folder for its settings and its log.

    Raises:
        ContestantError: If it fails to start.
    """

    def __init__(self, contestant: Contestant, settings: Settings, python: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path, self._log = folder / "settings.json", folder / "log.txt"
        path.write_text(json.dumps(dataclasses.asdict(settings)), encoding="utf-8")
        threads = {name: str(settings.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1"}
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [python, str(PEERS / contestant.script), str(path)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | threads | quiet,
            )  # fmt: skip
        self.facts = self._read()

    def step(self) -> dict[str, Any]:
        """Run one step.

        Raises:
            ContestantError: If the process dies.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died; `_read` reports why
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        return self._read()

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.communicate()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no message"]
            why = "killed, most likely out of memory" if code == -9 else lines[-1][:200]
            raise ContestantError(f"{why} (exit status {code}; see {self._log})")
        found: dict[str, Any] = json.loads(line)
        return found


Start = Callable[[Contestant, list[int]], Process]
"""Starts a contestant with the indices of its rows."""


class Entry:
    """A contestant with its rounds and results.

    Args:
        contestant: The contestant.
        start: Starts its process.
        order: Indices of its rows; the first batch is the warm-up, each of the others a round.
        batch_size: Rows per step.
        stays: Whether one process runs all rounds; otherwise each turn starts a new one with its own warm-up.
    """

    def __init__(self, contestant: Contestant, start: Start, order: list[int], batch_size: int, *, stays: bool) -> None:
        self.contestant, self.start, self.stays = contestant, start, stays
        self.batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        self.process: Process | None = None
        self.facts: dict[str, Any] = {}
        self.rounds: list[dict[str, Any]] = []
        self.failure: str | None = None

    def warm_up(self, index: int = 0) -> dict[str, Any]:
        """Start the process and run the step that is not timed."""
        batches = self.batches if self.stays else [self.batches[0], self.batches[1 + index]]
        self.process = self.start(self.contestant, [row for batch in batches for row in batch])
        self.facts = self.process.facts
        return self.process.step()

    def take_turn(self, index: int) -> dict[str, Any]:
        """Run the step of a round."""
        if not self.stays:
            self.warm_up(index)
        assert self.process is not None
        result = self.process.step()
        if not self.stays:
            self.end()
        return result

    def end(self) -> None:
        """Kill its process, if any."""
        if self.process is not None:
            self.process.end()
            self.process = None

    def attempt(self, action: Callable[[int], dict[str, Any]], index: int) -> dict[str, Any] | None:
        """The result of the action; None if the contestant fails or has failed. The others are not affected."""
        if self.failure:
            return None
        try:
            result = action(index)
        except ContestantError as error:
            self.failure = str(error)
            self.end()
            _log(f"{self.contestant.label}: {error}")
            return None
        speed = result["real"] / result["seconds"]
        _log(f"{self.contestant.label}: {result['seconds']:.2f} s, {speed:,.0f} tokens/s, loss {result['loss']:.4f}")
        return result

    def result(self) -> dict[str, Any]:
        """The result as it appears in the report."""
        rows = [row for batch in self.batches[1 : 1 + len(self.rounds)] for row in batch]
        found = {"label": self.contestant.label, "facts": self.facts, "rounds": self.rounds, "rows": rows}
        return found | ({"failure": self.failure} if self.failure else {})


def compete(entries: list[Entry]) -> dict[str, dict[str, Any]]:
    """Let all contestants take turns, one step each, lit_sft first.

    Returns:
        By name: `label`, `facts`, `warm_up`, `rounds`, the `rows` of these, and `failure` if it failed.

    Raises:
        SystemExit: If their first losses disagree, or lit_sft fails.
    """
    num_rounds = len(entries[0].batches) - 1
    try:
        _log("warming up")
        first = {}
        for entry in entries:
            first[entry.contestant.name] = entry.attempt(entry.warm_up, 0)
            if not entry.stays:
                entry.end()
        check_agreement(entries, {name: step for name, step in first.items() if step})
        for index in range(num_rounds):
            _log(f"round {index + 1} of {num_rounds}")
            for entry in entries:
                if step := entry.attempt(entry.take_turn, index):
                    entry.rounds.append(step)
    finally:
        for entry in entries:
            entry.end()
    if entries[0].failure:
        sys.exit(f"{entries[0].contestant.label}: {entries[0].failure}")
    return {e.contestant.name: e.result() | {"warm_up": first[e.contestant.name]} for e in entries}


def check_agreement(entries: list[Entry], first: dict[str, dict[str, Any]]) -> None:
    """Check that every contestant has the same first loss as lit_sft, the first entry.

    Raises:
        SystemExit: If not, since the contestants would not be doing the same work.
    """
    own = entries[0]
    if own.failure:
        sys.exit(f"{own.contestant.label}: {own.failure}")
    expected = first[own.contestant.name]["loss"]
    for entry in entries[1:]:
        if entry.contestant.name not in first:
            continue
        found = first[entry.contestant.name]["loss"]
        tolerance = max(TOLERANCE[e.facts["precision"]] for e in (own, entry))
        if not abs(found - expected) <= tolerance * expected:
            sys.exit(
                f"{entry.contestant.label}: the loss of the first batch is {found:.7f}, that of lit_sft "
                f"{expected:.7f}; expected a relative difference of at most {tolerance:g}. Nothing was timed."
            )


def python_of(environment: str | None, cache: Path) -> str:
    """The interpreter of an environment, created if these requirements do not have one yet.

    Raises:
        ContestantError: If its packages cannot be installed.
    """
    if environment is None:
        return sys.executable
    requirements = PEERS / f"{environment}.txt"
    pins = f"{sys.version_info[:2]}{requirements.read_text(encoding='utf-8')}"
    folder = cache / f"{environment}-{hashlib.sha256(pins.encode()).hexdigest()[:12]}"
    python = str(folder / "bin" / "python")
    if not (folder / "installed").exists():
        _log(f"creating an environment from {requirements} in {folder}")
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            install = [python, "-m", "pip", "install", "--progress-bar", "on", "-r", str(requirements)]
            subprocess.run(install, check=True)
        except subprocess.CalledProcessError as error:
            why = f"{requirements.name} could not be installed (exit status {error.returncode})"
            raise ContestantError(why) from None
        (folder / "installed").touch()
    return python


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
