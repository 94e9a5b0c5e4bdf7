from __future__ import annotations

import traceback
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from data_modules.errors import UserError
from lit_sft.__main__ import COMMANDS, main
from lit_sft.failures import BUG_NOTE, message_of, reason_in, reason_of_part


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MisconfigurationException("no such strategy"), "no such strategy"),
        (
            RuntimeError("Early stopping conditioned on metric `x` which is not available."),
            "Early stopping conditioned",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to"),
            "out of GPU memory (CUDA out of memory). Halve `--data.token_budget`",
        ),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "ran out of memory. Continue from"),
        (
            RuntimeError("Found more than one stateful callback of type `ModelCheckpoint`. In the current"),
            "`trainer.callbacks`: Found more than one stateful callback of type `ModelCheckpoint` with",
        ),
    ],
)
def test_failures_that_a_user_can_fix_are_one_line(error: Exception, message: str) -> None:
    said = message_of(error)
    assert said is not None
    assert message in said
    assert "\n" not in said


def test_the_reason_of_a_bug_is_its_error_and_not_the_note_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "fit", (f"{__name__}:_broken", ""))
    with pytest.raises(KeyError) as raised:
        main(["fit"])
    output = "".join(traceback.format_exception(raised.value))
    assert output.endswith(f"{BUG_NOTE}\n")
    assert reason_in(output) == "KeyError: 'labels'"
    assert reason_in(f"{output}lit_sft fit: interrupted\n") == "lit_sft fit: interrupted"
    assert reason_in(f"{BUG_NOTE}\n") == reason_in("") == "no output"


def _broken(argv: list[str]) -> None:
    raise KeyError("labels")


def test_other_failures_are_not_hidden() -> None:
    assert message_of(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None


def test_the_traceback_of_a_programming_error_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIT_SFT_DEBUG", raising=False)
    log = tmp_path / "out" / "errors.log"
    assert reason_of_part(UserError("rows.jsonl:1: no answer"), log.parent) == "rows.jsonl:1: no answer"
    assert not log.exists()
    for count in (1, 2):
        with pytest.raises(KeyError) as raised:
            _ = {}["http://me:secret@host/"]
        assert str(log) in reason_of_part(raised.value, log.parent)
        text = log.read_text(encoding="utf-8")
        assert text.count("Traceback") == text.count(Path(__file__).name) == count
    assert "secret" not in text.replace('{}["http://me:secret@host/"]', "")


def test_debug_variable_makes_bugs_end_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_SFT_DEBUG", "1")
    with pytest.raises(TypeError, match="broken"):
        reason_of_part(TypeError("broken"), tmp_path)
    assert reason_of_part(FileNotFoundError("nowhere"), tmp_path) == "nowhere"
