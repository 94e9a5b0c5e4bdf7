from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_sft.checkpoints.atomic_io import AtomicCheckpointIO


def test_checkpoint_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 3, "weight": torch.ones(2)}, path)
    assert torch.load(path, weights_only=True)["step"] == 3
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("moment", ["write", "flush"])
def test_full_disk_keeps_the_previous_checkpoint_and_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path, io = tmp_path / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"step": 1}, path)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((torch, "save") if moment == "write" else (os, "fsync")), full)
    with pytest.raises(OSError, match=r"last\.ckpt: .*No space left on device.*last\.ckpt is unchanged"):
        io.save_checkpoint({"step": 2}, path)
    monkeypatch.undo()
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("taken", [0, 3])
def test_torchs_disk_full_errors_are_distinguished_from_bugs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    save, writes = torch.save, []

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, content: Any) -> int:
            writes.append(len(content))
            if len(writes) > taken:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(self.file.write(content))

    path = tmp_path / "last.ckpt"
    monkeypatch.setattr(torch, "save", lambda checkpoint, file: save(checkpoint, Full(file)))
    with pytest.raises(OSError, match=r"last\.ckpt: cannot write this checkpoint .*Free up space"):
        AtomicCheckpointIO().save_checkpoint({"weight": torch.ones(1000)}, path)
    assert list(tmp_path.iterdir()) == []

    def wrong(*_: Any) -> None:
        raise RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")

    monkeypatch.setattr(torch, "save", wrong)
    with pytest.raises(RuntimeError, match=r"^The size of tensor a"):
        AtomicCheckpointIO().save_checkpoint({}, path)
    assert list(tmp_path.iterdir()) == []


def test_killed_writer_leaves_no_file_with_the_final_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(checkpoint: Any, file: Any) -> None:
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "last.ckpt")
    assert list(tmp_path.glob("*.ckpt")) == []
