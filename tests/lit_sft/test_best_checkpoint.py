from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from lit_sft.best_checkpoint import Choice, Scored, best_of, choose, write_best

SCORES = [Scored("a.ckpt", 2.0, 10), Scored("b.ckpt", 1.5, 20), Scored("c.ckpt", math.nan, 30)]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


@pytest.mark.parametrize(
    ("mode", "there", "expected"),
    [
        ("min", ["a.ckpt", "b.ckpt", "c.ckpt", "last.ckpt"], ("b.ckpt", True, "best val/loss 1.5, step 20")),
        ("max", ["a.ckpt", "b.ckpt", "c.ckpt", "last.ckpt"], ("a.ckpt", True, "best val/loss 2, step 10")),
        ("min", ["a.ckpt", "last.ckpt"], ("a.ckpt", True, "best val/loss 2, step 10")),
        ("min", ["c.ckpt", "last.ckpt"], ("last.ckpt", False, "the last step; b.ckpt, the best, is missing")),
    ],
)
def test_the_best_by_the_record_is_taken_of_those_that_exist(
    tmp_path: Path, mode: str, there: list[str], expected: tuple[str, bool, str]
) -> None:
    write_best(tmp_path, "val/loss", mode, SCORES)
    touch(tmp_path, *there)
    name, is_best, why = expected
    assert choose(tmp_path) == Choice(tmp_path / name, is_best, why)
    assert best_of(tmp_path) == (tmp_path / name if is_best else None)


def test_runs_without_a_record_are_read_by_their_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no checkpoint; did the run end"):
        choose(tmp_path)
    touch(tmp_path, "epoch=1.ckpt", "epoch=2.ckpt")
    with pytest.raises(ValueError, match=r"name one of the checkpoints here: epoch=1\.ckpt, epoch=2\.ckpt"):
        choose(tmp_path)
    touch(tmp_path, "last.ckpt")
    assert choose(tmp_path) == Choice(tmp_path / "last.ckpt", False, "the last step; none is marked best")
    touch(tmp_path, "best.ckpt")
    assert (choose(tmp_path).path.name, choose(tmp_path).is_best) == ("best.ckpt", True)
    assert best_of(tmp_path / "nowhere") is None


def test_a_file_that_may_be_of_either_of_two_steps_is_given_no_figure(tmp_path: Path) -> None:
    touch(tmp_path, "best.ckpt")
    write_best(tmp_path, "val/loss", "min", [Scored("best.ckpt", 2.0, 10), Scored("best.ckpt", 1.0, 20)])
    assert choose(tmp_path) == Choice(tmp_path / "best.ckpt", True, "best val/loss")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged. Name the checkpoint"),
        ("[]", "damaged. Name the checkpoint"),
        ('{"monitor": "m", "checkpoints": [{"file": "a.ckpt"}]}', "damaged. Name the checkpoint"),
        (
            json.dumps({"monitor": "m", "checkpoints": [{"file": "../../x.ckpt", "score": 1, "step": 1}]}),
            r"names \.\./\.\./x\.ckpt, which is not a file of this folder",
        ),
    ],
)
def test_a_damaged_record_is_one_message(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "best.json").write_text(content)
    touch(tmp_path, "best.ckpt", "last.ckpt", "a.ckpt")
    with pytest.raises(ValueError, match=message):
        choose(tmp_path)
