from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from data_modules.sft_data_module import SFTDataModule
from lit_sft.checkpoints.atomic_io import AtomicCheckpointIO
from lit_sft.checkpoints.best import choose
from lit_sft.checkpoints.callback import RunCheckpoint
from lit_sft.training.preemption import RunKeeper
from tests.conftest import alpaca_rows
from tests.training import make_module, make_trainer

MakeData = Callable[..., SFTDataModule]
Fit = Callable[..., None]
NAN, INF = math.nan, math.inf

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]


class Scores(Callback):
    """Logs a given score at each validation; None: nothing is logged."""

    def __init__(self, scores: list[float | None]) -> None:
        self.scores = scores

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and (score := self.scores[trainer.current_epoch]) is not None:
            pl_module.log("score", score)


@pytest.fixture
def fit(make_data: MakeData, tmp_path: Path) -> Callable[..., None]:
    """Train with one step and one score an epoch."""

    def _fit(
        scores: list[float | None],
        folder: Path,
        *,
        resume: Path | None = None,
        callbacks: Any = (),
        **settings: Any,
    ) -> None:
        defaults = {"monitor": "score", "filename": "best", "enable_version_counter": False}
        callback = RunCheckpoint(dirpath=folder, **(defaults | {"auto_insert_metric_name": False} | settings))
        data = make_data(alpaca_rows(6), batch_size=8, val_fraction=0.4)
        trainer = make_trainer(
            tmp_path, max_epochs=len(scores), enable_checkpointing=True, plugins=[AtomicCheckpointIO()],
            callbacks=[Scores(scores), RunKeeper(folder), callback, *callbacks], num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(make_module(), datamodule=data, ckpt_path=resume, weights_only=True)

    return _fit


def step_of(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("scores", "settings", "best"),
    [
        ([3, 1, 2, 4], {}, 2),
        ([3, 1, 2, 4], {"mode": "max"}, 4),
        ([3, 1, 2, 4], {"save_top_k": 3}, 2),
        ([3, 1, 2, 4], {"save_top_k": 2, "mode": "max"}, 4),
        ([1, 3, 2, 4], {"save_top_k": -1}, 1),
        ([3, 1, 2, 4], {"filename": "{epoch}-{step}"}, 2),
        ([1, 1.001, 0.9991, 4], {"filename": "score_{score:.0f}", "save_top_k": 2, "enable_version_counter": True}, 3),
        ([3, 1, 2, 4], {"enable_version_counter": True}, 2),
        ([3, 1, 2, 4], {"save_last": True}, 2),
        ([NAN, 3, NAN, 4], {}, 2),
        ([2, -INF, INF, 1], {}, 4),
        ([NAN, 3, 2, 4], {"save_top_k": 3}, 3),
        ([NAN, 3, INF, -INF], {"save_top_k": -1, "mode": "max"}, 2),
        ([3, None, 1, None], {"save_top_k": 2}, 3),
    ],
)
def test_the_best_is_the_best_by_the_metric(
    fit: Fit, tmp_path: Path, scores: list[float | None], settings: dict[str, Any], best: int
) -> None:
    fit(scores, tmp_path / "c", **settings)
    choice = choose(tmp_path / "c")
    assert (choice.is_best, step_of(choice.path)) == (True, best)
    assert choice.why == f"best score {scores[best - 1]:.6g}, step {best}"
    assert step_of(tmp_path / "c" / "last.ckpt") == 4
    files = {path.stem for path in (tmp_path / "c").glob("*.ckpt")} - {"last"}
    several = settings.get("save_top_k", 1)
    assert len(files) == (len(scores) if several == -1 else several)
    assert (files == {"best"}) == (several == 1 and "filename" not in settings)


def test_a_score_of_earlier_weights_saves_nothing(fit: Fit, tmp_path: Path) -> None:
    fit([3, None, 2, None], tmp_path / "c", save_top_k=-1)
    assert {path.name for path in (tmp_path / "c").glob("step_*")} == {"step_1.ckpt", "step_3.ckpt"}


@pytest.mark.parametrize(
    ("scores", "settings"), [([NAN, INF], {}), ([2, 1], {"save_top_k": 0}), ([2, 1], {"monitor": None})]
)
def test_without_a_best_checkpoint_the_last_is_used_and_named(
    fit: Fit, tmp_path: Path, scores: list[float | None], settings: dict[str, Any]
) -> None:
    fit(scores, tmp_path / "c", **settings)
    choice = choose(tmp_path / "c")
    assert (choice.path.name, choice.is_best, choice.why) == (
        "last.ckpt", False, "the last step; none is marked best",
    )  # fmt: skip
    assert not (tmp_path / "c" / "best.ckpt").exists()


@pytest.mark.parametrize("settings", [{}, {"save_top_k": 2}, {"filename": "{step}"}])
def test_a_copied_run_keeps_its_best_score_and_leaves_the_original_alone(
    fit: Fit, tmp_path: Path, settings: dict[str, Any]
) -> None:
    original, copied = tmp_path / "c", tmp_path / "elsewhere" / "copy"
    fit([3, 1, 2], original, **settings)
    shutil.copytree(original, copied)
    before = contents(original)
    fit([3, 1, 2, 1.5, 5], copied, resume=copied / "last.ckpt", **settings)
    assert choose(copied).why == "best score 1, step 2"
    assert step_of(choose(copied).path) == 2
    fit([3, 1, 2, 1.5, 5, 0.5], copied, resume=copied / "last.ckpt", **settings)
    assert choose(copied).why == "best score 0.5, step 6"
    assert step_of(choose(copied).path) == 6
    assert contents(original) == before
    shutil.rmtree(original)
    fit([3, 1, 2, 1.5, 5, 0.5, 2], copied, resume=copied / "last.ckpt", **settings)
    assert choose(copied).why == "best score 0.5, step 6"


@pytest.mark.parametrize("loss", ["removed", "damaged", "replaced"])
def test_lost_best_file_does_not_block_later_checkpoints(fit: Fit, tmp_path: Path, loss: str) -> None:
    folder = tmp_path / "c"
    fit([3, 1, 2], folder)
    best, last = folder / "best.ckpt", folder / "last.ckpt"
    if loss == "removed":
        best.unlink()
    elif loss == "damaged":
        raw = bytearray(best.read_bytes())
        raw[len(raw) // 2] ^= 64
        best.write_bytes(raw)
    else:
        shutil.copy(last, best)
    with pytest.warns(UserWarning, match=r"best\.ckpt: missing, damaged or from a different step.*next validations"):
        fit([3, 1, 2, 2.5, 4], folder, resume=last)
    assert (choose(folder).why, step_of(best)) == ("best score 2.5, step 4", 4)


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("filename", ["best", "{step}"])
@pytest.mark.parametrize(("moment", "best"), [("before it is written", 1), ("before the old one is removed", 2)])
def test_kill_while_saving_a_new_best_leaves_a_valid_best(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, best: int, filename: str
) -> None:
    write = AtomicCheckpointIO.save_checkpoint

    def killed(self: AtomicCheckpointIO, checkpoint: dict[str, Any], path: Path, **options: Any) -> None:
        is_second = checkpoint["global_step"] == 2 and Path(path).name != "last.ckpt"
        if is_second and moment == "before it is written":
            raise KilledError
        write(self, checkpoint, path, **options)
        if is_second:
            raise KilledError

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", killed)
    with pytest.raises(KilledError):
        fit([3, 1, 2], tmp_path / "c", filename=filename)
    monkeypatch.undo()
    choice = choose(tmp_path / "c")
    assert (choice.is_best, step_of(choice.path)) == (True, best)


def test_a_run_of_lightnings_own_callback_is_resumed_with_its_score(fit: Fit, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    fit([3, 1, 2], folder)
    last = torch.load(folder / "last.ckpt", weights_only=True)
    (key,) = (key for key in last["callbacks"] if "ModelCheckpoint" in key)
    assert key.startswith("ModelCheckpoint{")
    for name in ("steps", "validated_at"):  # which earlier versions did not write
        del last["callbacks"][key][name]
    torch.save(last, folder / "last.ckpt")
    (folder / "best.json").unlink()
    fit([3, 1, 2, 4], folder, resume=folder / "last.ckpt")
    assert (choose(folder).why, step_of(choose(folder).path)) == ("best score 1, step 2", 2)


def test_fewer_files_are_kept_after_resuming_with_a_smaller_number(fit: Fit, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    fit([3, 1, 2], folder, save_top_k=3)
    fit([3, 1, 2, 0.5], folder, resume=folder / "last.ckpt", save_top_k=1)
    assert (choose(folder).why, step_of(choose(folder).path)) == ("best score 0.5, step 4", 4)


def test_another_callback_may_not_overwrite_the_runs_own_files(fit: Fit, tmp_path: Path) -> None:
    def other(**settings: Any) -> list[ModelCheckpoint]:
        return [ModelCheckpoint(tmp_path / "c", monitor="score", every_n_epochs=2, **settings)]

    fit([2, 1], tmp_path / "c", callbacks=other(filename="every-second-{epoch}"))
    assert (tmp_path / "c" / "every-second-epoch=1.ckpt").exists()
    assert choose(tmp_path / "c").why == "best score 1, step 2"
    for name in ("best", "last"):
        with pytest.raises(ValueError, match=rf"a ModelCheckpoint would overwrite the run's own {name}\.ckpt"):
            fit([2, 1], tmp_path / "c", callbacks=other(filename=name))
