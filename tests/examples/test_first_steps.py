"""The notebook runs from top to bottom on the bundled data, and is kept without outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot

from tests.documents import ROOT

NOTEBOOK: dict[str, Any] = json.loads((ROOT / "examples" / "first_steps.ipynb").read_text(encoding="utf-8"))
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_notebook_runs_from_its_own_folder_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("configs", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "notes").mkdir()
    monkeypatch.chdir(tmp_path / "notes")  # Jupyter starts in any folder below the checkout
    monkeypatch.setenv("NOTEBOOK_STEPS", "3")
    monkeypatch.setattr(pyplot, "show", lambda: None)
    names: dict[str, Any] = {"__name__": "notebook"}
    for index, cell in enumerate(CODE):
        exec(compile("".join(cell["source"]), f"code cell {index}", "exec"), names)
    pyplot.close("all")

    heights = [bar.get_height() for bar in names["axes"].patches]
    measured = [
        names["scores"][mask][f"nll/{kind}"]
        for mask in ("output_only", "whole_sequence")
        for kind in ("answer", "user")
    ]
    assert heights == measured
    assert [trainer.global_step for trainer, _, _ in names["runs"].values()] == [3, 3]
    assert capsys.readouterr().out.count("reference:") == 6
    written = {path.name for path in tmp_path.iterdir()} - {"configs", "examples", "cache"}  # encoded data
    assert written == {"notes"}
    assert not list((tmp_path / "notes").iterdir())


def test_notebook_has_no_outputs() -> None:
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in CODE)
