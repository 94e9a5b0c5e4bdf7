"""Workers can hand over batches even if the path of the temporary folder is long."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from data_modules.sft_data_module import SFTDataModule
from tests.conftest import alpaca_rows


@pytest.fixture
def long_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / ("x" * 90) / ("y" * 90)
    folder.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    monkeypatch.setitem(config, "tempdir", None)
    return folder


def test_workers_collate_with_a_long_temporary_path(long_path: Path, make_data: Callable[..., SFTDataModule]) -> None:
    data = make_data(alpaca_rows(4), num_workers=1, batch_size=2)
    loader = data.train_dataloader()
    assert len(multiprocessing.util.get_temp_dir()) < 60
    loader.timeout = 120  # instead of forever
    assert len(list(loader)) == 2
    assert tempfile.gettempdir() == str(long_path)


def test_a_short_path_is_left_alone(monkeypatch: pytest.MonkeyPatch, make_data: Callable[..., SFTDataModule]) -> None:
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    monkeypatch.setitem(config, "tempdir", "kept")
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    make_data(alpaca_rows(4), num_workers=1).train_dataloader()
    assert config["tempdir"] == "kept"
