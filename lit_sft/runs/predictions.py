"""What `predict` writes and says: one row for each prompt, in a file of its own, and the first answers."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from jsonargparse import Namespace
from lightning.pytorch.callbacks import BasePredictionWriter

from data_modules.encoding.ledger import is_plain_text
from data_modules.errors import UserError
from lit_sft.files import json_line, read_json
from lit_sft.printable import excerpt, printable
from lit_sft.runs.data_report import dropped_lines
from lit_sft.training.module import LitCausalLM

_SHOWN = 5
_CHARACTERS = 300


class PredictionWriter(BasePredictionWriter):
    """Writes predictions as JSON lines, beside those of earlier predictions: no file is ever overwritten.

    Rows go to a file aside while they are made, which gets its name when it is complete. If the process is killed, that
    file stays, with the answers so far, and is in nobody's way.

    Args:
        folder: Gets predictions.jsonl, or predictions_1.jsonl and so on.
        output: The file instead.

    Raises:
        UserError: If `output` exists, or cannot be written.
    """

    def __init__(self, folder: Path, output: Path | None = None) -> None:
        super().__init__(write_interval="batch")
        if output is not None and os.path.lexists(output):
            raise UserError(f"--output {output}: exists already; name another file, or remove it.")
        self._folder, self._output = folder, output
        self._stream: TextIO | None = None
        self.first: list[dict[str, Any]] = []
        """The first rows, to show."""
        self.counts = {"answers": 0, "empty": 0, "not ended": 0}

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        target = self._output or self._folder / "predictions.jsonl"
        target.parent.mkdir(parents=True, exist_ok=True)
        self._partial = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.partial")
        self._stream = self._partial.open("x", encoding="utf-8")

    def write_on_batch_end(self, trainer: Any, pl_module: Any, prediction: Any, *_: Any) -> None:
        assert self._stream is not None
        for row in prediction:
            self._stream.write(json_line(row))
            self.counts["answers"] += 1
            self.counts["empty"] += not row["answer"].strip()
            self.counts["not ended"] += not row["ended"]
        self.first += prediction[: _SHOWN - len(self.first)]

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        assert self._stream is not None
        self._stream.close()
        self._stream = None  # what is complete is not removed, whatever happens next
        self.path = self._claimed()
        self._partial.replace(self.path)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if self._stream is not None:
            self._stream.close()
            self._partial.unlink(missing_ok=True)

    def report(self, log: Callable[[str], None], module: LitCausalLM) -> None:
        """Say the first answers, what is odd about all of them, and where they are."""
        for row in self.first:
            log(printable(row["origin"]))
            log(f"  prompt  {excerpt(row['question'], _CHARACTERS)}")
            ended = "" if row["ended"] else "  [not ended]"
            log(f"  answer  {excerpt(row['answer'], _CHARACTERS) or '(empty)'}{ended}")
        for line in self._notes(module):
            log(line)
        log(f"written {self.path}")

    def _notes(self, module: LitCausalLM) -> list[str]:
        answers, empty, endless = self.counts.values()
        limit = module.generation_settings.max_new_tokens
        notes = [f"{answers:,} answer{'s' * (answers != 1)}, of which {len(self.first):,} are shown"]
        if empty:
            notes.append(f"{empty:,} answer{'s are' if empty > 1 else ' is'} empty")
        if endless:
            notes.append(
                f"{endless:,} not ended by the model: cut at {limit} tokens (`--model.generation.max_new_tokens`)"
            )
        ledger = module.data.ledgers.get("predict", {})
        if cut := ledger.get("truncated"):
            room = module.data.length_limit("predict")
            notes.append(
                f"{cut:,} prompt{'s were' if cut > 1 else ' was'} longer than {room:,} tokens and cut: raise "
                "`--data.max_length` as far as the model allows, or lower `--model.generation.max_new_tokens`"
            )
        if lost := ledger.get("dropped", 0):
            notes.append(f"{lost:,} prompt{'s were' if lost > 1 else ' was'} not answered: too long, even cut")
        if ledger:
            notes += map(printable, dropped_lines(module.data, "predict"))
        return notes

    def _claimed(self) -> Path:
        """An empty file of the wanted name, made by this process.

        Raises:
            UserError: If another process has made the file that was asked for meanwhile.
        """
        if self._output is None:
            names = (f"predictions{f'_{number}' if number else ''}.jsonl" for number in count())
            return next(path for path in (self._folder / name for name in names) if _is_made(path))
        if not _is_made(self._output):
            raise UserError(
                f"--output {self._output}: made by another process meanwhile; the answers of this one are in "
                f"{self._partial}."
            )
        return self._output


def leave_training_data(data: Namespace, run: Path) -> None:
    """Set the data of a run aside where prompts are given, so that answering needs none of the files it was trained on.

    Args:
        data: Settings of the data module; changed in place, as Lightning's command line wants it.
        run: Folder of the run, whose ledger says what it was trained on.
    """
    ledger = read_json(run / "ledger.json")
    if not data.predict or not ledger or "train" not in ledger:
        return
    data.train = data.val = data.test = None
    data.text_prompts = data.text_prompts or ("beginning" if is_plain_text(ledger["train"]) else "question")


def _is_made(path: Path) -> bool:
    """Make an empty file; False if the name is taken."""
    try:
        path.open("x").close()
    except FileExistsError:
        return False
    return True
