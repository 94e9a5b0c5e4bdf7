"""What is compared: each job runs one trainer in one mode on all rows, and compares ids and labels with ours."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from data_modules.records.conversation import Conversation, Message, Role
from data_modules.rendering.conventions import expected_labels, resolve_convention
from tests.conventions.rows import Row, single_exchanges

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Job:
    """One run of a trainer.

    Attributes:
        trainer: Names its environment and its driver.
        convention: Ours.
        settings: The trainer's settings.
        template: `--data.template`.
        max_length: The limit. None: no limit.
        single: Whether the trainer reads single exchanges only.
        context: Whether its rows have a separate input.
    """

    trainer: str
    convention: str
    settings: dict[str, Any] = field(default_factory=dict)
    template: str = "tokenizer"
    max_length: int | None = None
    single: bool = False
    context: bool = False

    @property
    def name(self) -> str:
        """A name for the test report."""
        own = self.settings.get("chat_template", "")
        parts = [self.convention, self.template, str(self.max_length or "whole"), own if own.endswith(".jinja") else ""]
        return "-".join(filter(None, parts))


@dataclass
class Mismatch:
    """A row that we encode differently.

    Attributes:
        row: Its index.
        ours: Ids and labels, or None if we drop it.
        theirs: The same of the trainer.
    """

    row: int
    ours: tuple[list[int], list[int]] | None
    theirs: tuple[list[int], list[int]] | None

    def shown(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """The first token that differs, with its neighbours."""
        if self.ours is None or self.theirs is None:
            return f"row {self.row}: dropped by {'us' if self.ours is None else 'them'} only"
        pairs = [list(zip(*labelled, strict=True)) for labelled in (self.ours, self.theirs)]
        shorter = min(map(len, pairs))
        place = next((at for at in range(shorter) if pairs[0][at] != pairs[1][at]), shorter)
        parts = [
            [(tokenizer.decode([i]), label != -100) for i, label in p[max(0, place - 3) : place + 4]] for p in pairs
        ]
        return (
            f"row {self.row}, token {place} of {len(pairs[0])} and {len(pairs[1])}: ours {parts[0]}, theirs {parts[1]}"
        )


def run(jobs: list[Job], python: Path, tokenizer_folder: Path, rows: list[Row], folder: Path) -> list[list[Mismatch]]:
    """Run a trainer on rows, once per job, in one process, and compare.

    Args:
        jobs: What to run, all of one trainer.
        python: Python of the trainer's environment.
        tokenizer_folder: The tokenizer of both.
        rows: From `rows.all_rows`.
        folder: For the files that pass between us.

    Returns:
        The rows that differ, by job.
    """
    found = results_of(jobs, python, tokenizer_folder, rows, folder)
    results = []
    for index, (job, theirs) in enumerate(zip(jobs, found, strict=True)):
        tokenizer, template = AutoTokenizer.from_pretrained(tokenizer_folder), folder / f"out_{index}.jinja"
        if template.exists():  # one of the trainer's own
            tokenizer.chat_template = template.read_text(encoding="utf-8")
        results.append(list(_differences(job, rows_of(job, rows), theirs, tokenizer)))
    return results


def results_of(
    jobs: list[Job], python: Path, tokenizer_folder: Path, rows: list[Row], folder: Path
) -> list[dict[int, tuple[list[int], list[int]]]]:
    """Ids and labels of a trainer, by job and row; rows that it drops are missing. The arguments are those of `run`."""
    settings = [_settings(job, index, tokenizer_folder, rows, folder) for index, job in enumerate(jobs)]
    (folder / "jobs.json").write_text(json.dumps(settings), encoding="utf-8")
    command = [str(python), str(HERE / "drivers" / f"run_{jobs[0].trainer}.py"), str(folder / "jobs.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, f"{jobs[0].trainer} failed:\n{done.stderr[-4000:]}"
    return [_read(Path(given["out"])) for given in settings]


def rows_of(job: Job, rows: list[Row]) -> list[Row]:
    """The rows as the job's trainer can read them."""
    rows = single_exchanges(rows) if job.single else rows
    return rows if job.context else [{"messages": row["messages"]} for row in rows]


def _settings(job: Job, index: int, tokenizer_folder: Path, rows: list[Row], folder: Path) -> dict[str, Any]:
    source, out = folder / f"rows_{index}.jsonl", folder / f"out_{index}.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows_of(job, rows)), encoding="utf-8")
    own = _torchtune_files(tokenizer_folder, folder) if job.trainer == "torchtune" else {}
    files = {"rows": str(source), "out": str(out), "tokenizer": str(tokenizer_folder), **own}
    return {**files, "max_length": job.max_length, **job.settings}


def _read(out: Path) -> dict[int, tuple[list[int], list[int]]]:
    items = map(json.loads, out.read_text(encoding="utf-8").splitlines())
    theirs = {item["row"]: (item["input_ids"], item["labels"]) for item in items}
    assert theirs, f"{out.name}: the trainer kept no row"
    return theirs


def _torchtune_files(tokenizer_folder: Path, folder: Path) -> dict[str, Any]:
    """The vocabulary and merges as torchtune reads them."""
    backend = json.loads((tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    vocab.write_text(json.dumps(backend["model"]["vocab"]), encoding="utf-8")
    pairs = (pair if isinstance(pair, str) else " ".join(pair) for pair in backend["model"]["merges"])
    merges.write_text("\n".join(pairs), encoding="utf-8")
    special = {token["content"]: token["id"] for token in backend["added_tokens"]}
    return {"vocab": str(vocab), "merges": str(merges), "special_tokens": special}


def _differences(
    job: Job, rows: list[Row], theirs: dict[int, tuple[list[int], list[int]]], tokenizer: PreTrainedTokenizerBase
) -> Iterator[Mismatch]:
    convention = resolve_convention(job.convention, tokenizer, job.template)
    for index, row in enumerate(rows):
        ours = expected_labels(convention, conversation(row), job.max_length or 10**6)
        if ours != theirs.get(index):
            yield Mismatch(index, ours, theirs.get(index))


def conversation(row: Row) -> Conversation:
    """A row as our reader of records makes it."""
    context = row.get("input", "")
    users = 0
    turns = []
    for message in row["messages"]:
        role = Role(message["role"])
        users += role is Role.USER
        turns.append(Message(role, message["content"], context=context if role is Role.USER and users == 1 else ""))
    return Conversation(tuple(turns), "row")


def jobs() -> list[Job]:
    """All jobs that need no real tokenizer."""
    return [*_trl(), *_torchtune(), *_litgpt(), *_llamafactory(), *_axolotl()]


def _trl() -> Iterator[Job]:
    for limit in (None, 48):
        yield Job("trl", "trl:messages", {"mode": "messages", "chat_template": ""}, max_length=limit)
        yield Job("trl", "trl:prompt_completion", {"mode": "prompt_completion", "chat_template": ""}, max_length=limit)
        for own in ("qwen2_5_training.jinja", "qwen3_training.jinja", "phi3_training.jinja"):
            yield Job("trl", "trl:assistant_only", {"mode": "assistant_only", "chat_template": own}, max_length=limit)
        own = "qwen2_5.jinja"
        yield Job("trl", "trl:assistant_only", {"mode": "assistant_only", "chat_template": own}, max_length=limit)


def _torchtune() -> Iterator[Job]:
    yield Job("torchtune", "torchtune", template="chatml")
    for limit in (1000, 48, 20):
        yield Job("torchtune", "torchtune:max_seq_len", template="chatml", max_length=limit)


def _litgpt() -> Iterator[Job]:
    for limit in (None, 48):
        for template in ("alpaca", "chatml"):
            for option in ("", ":mask_prompt"):
                settings = {"template": template, "mask_prompt": bool(option)}
                yield Job("litgpt", f"litgpt{option}", settings, template, limit, single=True,
                          context=template == "alpaca")  # fmt: skip


def _llamafactory() -> Iterator[Job]:
    options = ("", ":mask_history", ":train_on_prompt")
    for limit in (None, 48, 20):
        for option in options:
            chosen = {name: name in option for name in ("train_on_prompt", "mask_history")}
            yield Job("llamafactory", f"llamafactory{option}", {"template": "chatml", "alpaca": False, **chosen},
                      "chatml", limit)  # fmt: skip
        settings = {"template": "alpaca", "alpaca": True, "train_on_prompt": False, "mask_history": False}
        yield Job("llamafactory", "llamafactory", settings, "alpaca", limit, single=True, context=True)
        settings = {"template": None, "alpaca": False, "train_on_prompt": False, "mask_history": False}
        yield Job("llamafactory", "llamafactory", settings, "tokenizer", limit)


def _axolotl() -> Iterator[Job]:
    yield Job("axolotl", "axolotl", {"chat_template": "", "dataset": {}})
    yield Job("axolotl", "axolotl", {"chat_template": "", "dataset": {}}, max_length=48)
    for rule in ("all", "last", "none"):
        yield Job("axolotl", f"axolotl:train_on_eos={rule}", {"chat_template": "", "dataset": {"train_on_eos": rule}})
    roles = {"roles_to_train": ["user", "assistant"]}
    yield Job("axolotl", "axolotl:roles_to_train=user+assistant", {"chat_template": "", "dataset": roles})
