from __future__ import annotations

import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from data_modules.errors import UserError
from lit_sft.runs import folders as runs
from lit_sft.runs.folders import Run, find_resumable, find_run, new_run, paths_of


def make_run(folder: Path, *, started: object = None, names: tuple[str, ...] = ("last",)) -> Run:
    """A run folder without a model: settings and checkpoints; the n-th name has n steps."""
    run = Run(folder)
    run.checkpoints.mkdir(parents=True)
    run.config.write_text("{}")
    for step, name in enumerate(names):
        save(run.checkpoints / f"{name}.ckpt", step)
    if started is not None:
        (folder / "run.json").write_text(json.dumps({"started": started}))
    return run


def save(path: Path, step: int, *, whole: bool = True) -> None:
    loops = {"fit_loop": {"epoch_loop.batch_progress": {"total": {"ready": step}}}}
    state = {"global_step": step, "loops": loops, "state_dict": {}}
    torch.save(state | ({"optimizer_states": []} if whole else {}), path)


def test_run_numbers_are_given_once_to_processes_that_ask_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, taken = runs._next_number, []

    def overtaken(parent: Path) -> int:
        number = count(parent)
        if len(taken) < 3:  # another process makes its folder between our counting and our making ours
            taken.append(number)
            (parent / f"version_{number}").mkdir()
        return number

    monkeypatch.setattr(runs, "_next_number", overtaken)
    assert new_run(str(tmp_path), "a").folder.name == "version_3"
    monkeypatch.undo()
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: new_run(str(tmp_path), "b").folder.name, range(8)))
    assert sorted(folders) == [f"version_{number}" for number in range(8)]


def test_parent_folder_that_disappears_is_recreated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count, removed = runs._next_number, []

    def vanishing(parent: Path) -> int:
        if not removed:  # another process removes the folder of its own run, which never started, and the one above
            removed.append(parent)
            parent.rmdir()
        return count(parent)

    monkeypatch.setattr(runs, "_next_number", vanishing)
    assert new_run(str(tmp_path), "a").folder.is_dir()


def test_numbers_follow_the_highest_and_other_names_do_not_count(tmp_path: Path) -> None:
    for name in ("version_2", "version_10", "version_x", "version_²", "version_"):
        (tmp_path / "a" / name).mkdir(parents=True)
    (tmp_path / "a" / "version_11").write_text("a file takes its number too")
    assert new_run(str(tmp_path), "a").folder.name == "version_12"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", "/abs", "a\0b", "a\nb", "\x1b[2J", "x" * 101])
def test_a_name_cannot_leave_the_folder_of_runs_or_steer_a_terminal(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"^--run\.name "):
        new_run(str(tmp_path / "runs"), name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a b", "中文", ".hidden", "v1.0-α"])
def test_plain_names_are_accepted(tmp_path: Path, name: str) -> None:
    assert new_run(str(tmp_path), name).folder == tmp_path / name / "version_0"


def test_the_newest_run_is_the_one_started_last_by_its_own_record(tmp_path: Path) -> None:
    older = make_run(tmp_path / "a" / "version_0", started=100.0)
    newer = make_run(tmp_path / "b" / "version_0", started=200.0)
    os.utime(older.config, (300, 300))  # touched, or copied
    assert find_run(None, str(tmp_path))[0] == newer
    shutil.copytree(older.folder, tmp_path / "c" / "version_0")
    assert find_run(None, str(tmp_path))[0] == newer
    damaged = make_run(tmp_path / "d" / "version_0", started="yesterday")
    os.utime(damaged.config, (50, 50))
    make_run(tmp_path / "e" / "version_0", started=999.0, names=())  # no checkpoint
    (tmp_path / "f" / "version_0").mkdir(parents=True)
    (tmp_path / "f" / "version_0" / "config.yaml").symlink_to("nowhere")
    assert find_run(None, str(tmp_path))[0] == newer


def test_runs_of_earlier_versions_count_from_when_their_settings_were_written(tmp_path: Path) -> None:
    first, second = (make_run(tmp_path / name / "version_0") for name in "ab")
    os.utime(first.config, (200, 200))
    os.utime(second.config, (100, 100))
    assert find_run(None, str(tmp_path))[0] == first
    assert find_resumable(None, str(tmp_path))[0] == first


def test_error_for_a_missing_relative_path_names_its_base_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "runs" / "a" / "version_0")
    run.config.write_text("{data: {train: [rows.jsonl, nowhere.jsonl]}, model: {backbone: {tokenizer: ./tokens}}}")
    (tmp_path / "rows.jsonl").touch()
    (tmp_path / "tokens").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    run.note_start()
    with pytest.raises(ValueError, match=r"^no tokenizer$"), paths_of(run):
        raise UserError("no tokenizer")
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="no file The relative paths of this run") as failed, paths_of(run):
        raise FileNotFoundError("./tokens, rows.jsonl: no file")
    assert str(failed.value).endswith(
        f"The relative paths of this run (./tokens, rows.jsonl) are relative to {tmp_path}; run the command there."
    )
    with pytest.raises(ValueError, match=r"relative paths of this run \(\./tokens\) are relative"), paths_of(run):
        raise UserError(f"{Path('tokens').absolute()}: no tokenizer")
    for other in ("no memory", "other_rows.jsonl: bad", "--data.rows.jsonl: bad", "x/tokens: bad", "tokens-of-yours"):
        with pytest.raises(ValueError, match=f"^{re.escape(other)}$"), paths_of(run):  # fails over something else
            raise UserError(other)
    (tmp_path / "elsewhere" / "rows.jsonl").touch()
    (tmp_path / "elsewhere" / "tokens").touch()
    with pytest.raises(ValueError, match=r"^something else$"), paths_of(run):
        raise UserError("something else")
    with pytest.raises(ValueError, match=r"^rows\.jsonl: line 3$"), paths_of(run):
        raise UserError("rows.jsonl: line 3")


def test_newest_intact_checkpoint_is_resumed_whatever_its_name(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", names=("best", "a", "last", "b", "c", "d"))
    save(run.checkpoints / "d.ckpt", 9, whole=False)  # weights alone cannot be resumed
    raw = (run.checkpoints / "c.ckpt").read_bytes()
    (run.checkpoints / "c.ckpt").write_bytes(raw[:-30])
    _, checkpoint, broken = find_resumable(str(run.folder))
    assert (checkpoint.name, [path.name for path in broken]) == ("b.ckpt", ["c.ckpt"])
    with pytest.raises(ValueError, match=r"no intact checkpoint \(d\.ckpt: weights only\)"):
        find_resumable(str(run.checkpoints / "d.ckpt"))
