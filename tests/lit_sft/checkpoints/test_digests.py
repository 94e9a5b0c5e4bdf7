from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins import TorchCheckpointIO

from data_modules.sft_data_module import SFTDataModule
from lit_sft.checkpoints.atomic_io import AtomicCheckpointIO
from lit_sft.checkpoints.digests import is_intact
from lit_sft.models.saving import read_checkpoint
from lit_sft.runs.folders import Run, find_resumable
from tests.conftest import chat_rows
from tests.flips import flipped
from tests.training import make_module, make_trainer, train


def checkpoint(value: float = 1.0) -> dict[str, Any]:
    """A checkpoint as Lightning writes it, with tensors of several dtypes."""
    draw = torch.Generator().manual_seed(0)
    weights = {"a": torch.randn(40, 40, generator=draw), "b": torch.full((9,), value, dtype=torch.bfloat16)}
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(40, 40, generator=draw)}}
    progress = {"epoch_loop.batch_progress": {"total": {"ready": 2}}}
    return {
        "global_step": 1, "state_dict": weights, "optimizer_states": [{"state": moments}],
        "loops": {"fit_loop": progress},
    }  # fmt: skip


def test_every_flipped_bit_of_a_checkpoint_is_noticed_by_every_reader(tmp_path: Path) -> None:
    path, io = tmp_path / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint(checkpoint(), path)
    readers: list[Callable[[Path], Any]] = [read_checkpoint, lambda p: io.load_checkpoint(p, weights_only=True)]
    for damaged in flipped(path, count=60, seed=0):
        for read in readers:
            with pytest.raises(ValueError, match=r"last\.ckpt: damaged, truncated or not a checkpoint"):
                read(damaged)
    assert torch.equal(read_checkpoint(path)["state_dict"]["a"], checkpoint()["state_dict"]["a"])


def test_a_flipped_bit_in_a_checkpoint_without_a_digest_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "old.ckpt"
    torch.save(checkpoint(), path)
    assert is_intact(path)
    noticed = 0
    for damaged in flipped(path, count=60, seed=1):
        try:
            found, expected = read_checkpoint(damaged), checkpoint()
        except ValueError:
            noticed += 1
            continue
        assert torch.equal(found["state_dict"]["a"], expected["state_dict"]["a"])
        assert torch.equal(found["state_dict"]["b"], expected["state_dict"]["b"])
        moments = [c["optimizer_states"][0]["state"][0]["exp_avg"] for c in (found, expected)]
        assert torch.equal(*moments)
        assert found["loops"] == expected["loops"]
    assert noticed >= 40


def test_damaged_checkpoint_is_skipped_when_resuming(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    AtomicCheckpointIO().save_checkpoint(checkpoint(), run.checkpoints / "best.ckpt")
    AtomicCheckpointIO().save_checkpoint({**checkpoint(2.0), "global_step": 9}, run.checkpoints / "last.ckpt")
    run.config.write_text("{}")
    assert find_resumable(str(run.folder))[1].name == "last.ckpt"
    for _ in flipped(run.checkpoints / "last.ckpt", count=5, seed=2):
        _, chosen, broken = find_resumable(str(run.folder))
        assert (chosen.name, [path.name for path in broken]) == ("best.ckpt", ["last.ckpt"])


def test_a_digest_covers_every_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_sft.checkpoints.digests._BLOCK_BYTES", 1000)
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint(), path)
    content = path.read_bytes()
    assert is_intact(path)
    for place in range(0, len(content), 500):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert not is_intact(path)


@pytest.mark.parametrize("size", [0, 10, 21, 100, 1000])
def test_a_checkpoint_that_was_cut_short_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint(), path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="damaged, truncated or not a checkpoint"):
        read_checkpoint(path)


def test_file_without_weights_is_not_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    for other in ({"step": 1}, [1, 2], torch.ones(2)):
        torch.save(other, path)
        with pytest.raises(ValueError, match=r"last\.ckpt: not a checkpoint of a run: it has no state_dict"):
            read_checkpoint(path)


@pytest.mark.parametrize("writer", [AtomicCheckpointIO(), TorchCheckpointIO()])
def test_plain_trainer_also_detects_a_flipped_bit(
    make_data: Callable[..., SFTDataModule], tmp_path: Path, writer: TorchCheckpointIO
) -> None:
    data, path = make_data(chat_rows(4), template="plain"), tmp_path / "last.ckpt"
    train(data, tmp_path, make_module(), max_steps=1, plugins=[writer]).trainer.save_checkpoint(path)
    content = bytearray(path.read_bytes())
    place = content.index(
        torch.load(path, weights_only=True)["state_dict"]["backbone.transformer.wpe.weight"].numpy().tobytes()
    )
    content[place + 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"last\.ckpt: damaged"):
        make_trainer(tmp_path).validate(make_module(), datamodule=data, ckpt_path=path, weights_only=True)
