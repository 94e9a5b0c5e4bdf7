from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from lit_sft.ablation.trials import result_of
from lit_sft.checkpoints.best import Choice, Scored, best_of, choose, write_best

SCORES = [Scored("a.ckpt", 2.0, 10), Scored("b.ckpt", 1.5, 20), Scored("c.ckpt", math.nan, 30)]


UNKNOWN = (
    r"best\.json: damaged, so the best checkpoint is unknown; name a checkpoint instead of the run folder, such as "
    r"\S+/best\.ckpt \(or remove that file to use best\.ckpt\)\.$"
)


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
def test_best_existing_checkpoint_in_the_record_is_chosen(
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
    with pytest.raises(ValueError, match=r"name one of its checkpoints: epoch=1\.ckpt, epoch=2\.ckpt"):
        choose(tmp_path)
    touch(tmp_path, "last.ckpt")
    assert choose(tmp_path) == Choice(tmp_path / "last.ckpt", False, "the last step; none is marked best")
    touch(tmp_path, "best.ckpt")
    assert (choose(tmp_path).path.name, choose(tmp_path).is_best) == ("best.ckpt", True)
    assert best_of(tmp_path / "nowhere") is None


def test_file_that_may_be_from_either_of_two_steps_gets_no_metric(tmp_path: Path) -> None:
    touch(tmp_path, "best.ckpt")
    write_best(tmp_path, "val/loss", "min", [Scored("best.ckpt", 2.0, 10), Scored("best.ckpt", 1.0, 20)])
    assert choose(tmp_path) == Choice(tmp_path / "best.ckpt", True, "best val/loss")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", UNKNOWN),
        ("[]", UNKNOWN),
        ('{"monitor": "m", "checkpoints": [{"file": "a.ckpt"}]}', UNKNOWN),
        (
            json.dumps({"monitor": "m", "checkpoints": [{"file": "../../x.ckpt", "score": 1, "step": 1}]}),
            r"names \.\./\.\./x\.ckpt, which is not a file in this folder",
        ),
        (
            json.dumps({"monitor": "m", "checkpoints": [{"file": "..", "score": 1, "step": 1}]}),
            r"names \.\., which is not a file in this folder",
        ),
    ],
)
def test_a_damaged_record_is_one_message(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "best.json").write_text(content)
    touch(tmp_path, "best.ckpt", "last.ckpt", "a.ckpt")
    with pytest.raises(ValueError, match=message):
        choose(tmp_path)


@pytest.mark.parametrize(
    ("there", "advice"),
    [
        (["last.ckpt"], r"such as \S+/last\.ckpt \(or remove that file to use last\.ckpt\)\."),
        (["epoch=1.ckpt"], r"such as \S+/epoch=1\.ckpt\."),
        ([], "there is no checkpoint in that folder either"),
    ],
)
def test_advice_for_a_damaged_record_matches_the_existing_files(tmp_path: Path, there: list[str], advice: str) -> None:
    (tmp_path / "best.json").write_text("{")
    touch(tmp_path, *there)
    with pytest.raises(ValueError, match=advice):
        choose(tmp_path)


def test_last_step_trial_is_read_even_if_the_best_record_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    write_best(tmp_path / "checkpoints", "val/loss", "min", SCORES)
    touch(tmp_path / "checkpoints", "b.ckpt", "last.ckpt")
    touch(tmp_path, "result.json", "result_last.json")
    assert result_of(tmp_path, "last") == tmp_path / "result_last.json"
    (tmp_path / "checkpoints" / "best.json").write_text("{")
    assert result_of(tmp_path, "last") == tmp_path / "result_last.json"
    assert result_of(tmp_path, "best") == tmp_path / "result.json"
