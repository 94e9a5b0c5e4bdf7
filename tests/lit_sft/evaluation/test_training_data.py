"""Where a run's own training files are, and which items of a suite occur in them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from data_modules.encoding.cache import records_digest
from data_modules.errors import UserError
from lit_sft.evaluation import training_data
from lit_sft.evaluation.contamination import find_exposure, in_words
from lit_sft.evaluation.evaluation_report import make_report
from lit_sft.evaluation.item_results import Results, SetResult
from lit_sft.evaluation.scores import Scored
from lit_sft.evaluation.suite import AnswerSet, ConversationSet, Suite, TextSet
from lit_sft.evaluation.training_data import training_data_of
from lit_sft.reporting.page import render_html

Write = Callable[..., str]


def words(count: int) -> list[dict[str, str]]:
    """Rows that have no word in common."""
    return [{"instruction": f"left{n} right{n}", "output": f"up{n}"} for n in range(count)]


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """A run folder with only its config and a checkpoint containing the digests of the records."""

    def _make(data: dict[str, Any], *, knows: list[str] | None = None, place: str = "runs/mine/version_0") -> Path:
        run = tmp_path / place
        (run / "checkpoints").mkdir(parents=True)
        shares = {"val_fraction": 0.0, "test_fraction": 0.0, "train_fraction": 1.0}
        (run / "config.yaml").write_text(yaml.safe_dump({"seed_everything": 0, "data": {**shares, **data}}))
        identity = {f"records of --data.{split}": json.dumps(records_digest([data[split]])) for split in knows or []}
        torch.save({"identity": identity, "state_dict": {}}, run / "checkpoints" / "best.ckpt")
        (run / "model").mkdir()
        return run

    return _make


def results_of(rows: dict[str, list[Scored]], kinds: dict[str, str]) -> Results:
    results = Results(["tuned"])
    for name, scored in rows.items():
        results.results["tuned", name] = SetResult(kinds[name], {row.item: row for row in scored}, [], 1.0)
    return results


def test_a_runs_own_files_are_searched_by_split(tmp_path: Path, write: Write, make_run: Callable[..., Path]) -> None:
    rows = words(40)
    train, val, test = (
        write("train.jsonl", rows[:20]),
        write("val.jsonl", rows[18:24]),
        write("test.jsonl", rows[24:26]),
    )
    run = make_run({"train": train, "val": val, "test": test}, knows=["train"])
    asked = write("asked.jsonl", [*rows[:3], rows[18], *rows[22:28]])
    suite = Suite(
        answers={"asked": AnswerSet(asked)},
        conversations={"same": ConversationSet(asked)},
        text={"prose": TextSet(write("prose.txt", f"{'a b ' * 16}\nleft1 right1\n"))},
    )
    items = [Scored(f"{asked}:{n}", {}, details={"question": row["instruction"], "reference": row["output"]})
             for n, row in enumerate([*rows[:3], rows[18], *rows[22:28]], start=1)]  # fmt: skip
    bare = [Scored(row.item, {"nll/answer": (1.0, 1.0)}) for row in items]
    prose = [Scored(f"{tmp_path / 'prose.txt'}:{n}", {"bits_per_byte": (1.0, 1.0)}) for n in (1, 2)]
    results = results_of(
        {"asked": items, "same": bare, "prose": prose},
        {"asked": "answers", "same": "conversations", "prose": "text"},
    )
    data = training_data_of(str(run))
    assert data is not None
    assert data.state == "unchanged"
    found = find_exposure(suite, results, "tuned", data)
    # row 18 is also in validation and therefore not in training; rows 24 and 25 are test rows; the others occur nowhere
    assert found.trained == {name: {f"{asked}:{n}" for n in (1, 2, 3)} for name in ("asked", "same")} | {
        "prose": {f"{tmp_path / 'prose.txt'}:2"}
    }
    assert found.chosen == {name: {f"{asked}:{n}" for n in (4, 5, 6)} for name in ("asked", "same")}
    trained, chosen = in_words(results, {"tuned": found})
    assert trained.startswith("The training records of “tuned” contain ")
    assert chosen.startswith("The validation records of “tuned”, used to choose the best checkpoint, contain ")
    assert all("3 of 10 items of “asked”" in line for line in (trained, chosen))
    report = make_report(suite, results, tmp_path, about=[], exposures={"tuned": found})
    page = render_html(report)
    assert "Were the items in the training data?" in page
    assert trained in page
    written = json.loads((tmp_path / "results.json").read_text())["training_data"]["tuned"]
    assert (written["state"], written["items_in_training"]["asked"]) == (
        "unchanged",
        [f"{asked}:{n}" for n in (1, 2, 3)],
    )


def test_shares_held_out_of_the_training_file_are_not_called_trained_on(
    tmp_path: Path, write: Write, make_run: Callable[..., Path]
) -> None:
    rows = words(60)
    train = write("train.jsonl", rows)
    run = make_run({"train": train, "val_fraction": 0.2, "test_fraction": 0.3, "train_fraction": 0.5}, knows=["train"])
    data = training_data_of(str(run))
    assert data is not None
    items = [Scored(f"{train}:{n + 1}", {}, details={"question": row["instruction"]}) for n, row in enumerate(rows)]
    results = results_of({"asked": items}, {"asked": "answers"})
    found = find_exposure(Suite(answers={"asked": AnswerSet(train)}), results, "tuned", data)
    trained, chosen = found.trained["asked"], found.chosen["asked"]
    assert trained.isdisjoint(chosen)
    assert 8 <= len(trained) <= 24  # half of half
    assert 4 <= len(chosen) <= 22


def test_training_files_are_read_from_the_columns_of_the_run(write: Write, make_run: Callable[..., Path]) -> None:
    rows = words(6)
    mapped = [{"question": row["instruction"], "answer": row["output"]} for row in rows[:3]]
    merged = {
        "messages": [{"role": "user", "content": rows[4]["instruction"]}] * 2 + [{"role": "assistant", "content": "x"}]
    }
    settings = {
        "columns": {"instruction": "question", "output": "answer"},
        "consecutive": "merge",
        "first_answer": "drop",
    }
    files = [write("train.jsonl", mapped), write("merged.jsonl", [merged])]
    data = training_data_of(str(make_run({"train": files, **settings})))
    assert data is not None
    items = [Scored(str(n), {}, details={"question": row["instruction"]}) for n, row in enumerate(rows)]
    found = find_exposure(
        Suite(answers={"asked": AnswerSet("x")}), results_of({"asked": items}, {"asked": "answers"}), "tuned", data
    )
    assert found.trained == {"asked": {"0", "1", "2", "4"}}


def test_a_set_that_could_not_be_scored_does_not_stop_the_search_for_the_others(
    write: Write, make_run: Callable[..., Path]
) -> None:
    rows = words(4)
    data = training_data_of(str(make_run({"train": write("train.jsonl", rows)}, knows=["train"])))
    assert data is not None
    bad = write("bad.jsonl", [{"q": 1}, {"q": 2}])
    suite = Suite(answers={"asked": AnswerSet(bad)}, conversations={"bad": ConversationSet(bad)})
    item = Scored("1", {}, details={"question": rows[2]["instruction"], "reference": rows[2]["output"]})
    found = find_exposure(suite, results_of({"asked": [item]}, {"asked": "answers"}), "tuned", data)
    assert found.trained == {"asked": {"1"}}


@pytest.mark.parametrize("given", ["run", "checkpoint", "model"])
def test_files_are_found_from_the_folder_in_which_the_training_was_started(
    tmp_path: Path, make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in words(3)))
    monkeypatch.chdir(tmp_path)
    run = make_run({"train": "data/train.jsonl"}, knows=["train"])
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "data").mkdir(parents=True)
    (elsewhere / "data" / "train.jsonl").write_text("{}")  # another file of this name
    monkeypatch.chdir(elsewhere)
    place = {"run": run, "checkpoint": run / "checkpoints" / "best.ckpt", "model": run / "model"}[given]
    data = training_data_of(os.path.relpath(place, elsewhere))
    assert data is not None
    assert data.sources is not None
    assert (data.state, data.sources.files) == ("unchanged", {"train": [str(tmp_path / "data" / "train.jsonl")]})


@pytest.mark.parametrize(
    ("what", "state", "said"),
    [
        ("gone", "missing", "not searched: .*train.jsonl not found"),
        ("changed", "changed", "CHANGED since training"),
        ("unknown", "not verified", "has no digest of them"),
    ],
)
def test_unknown_training_data_is_reported(
    write: Write, make_run: Callable[..., Path], what: str, state: str, said: str
) -> None:
    train = write("train.jsonl", words(3))
    run = make_run({"train": train}, knows=[] if what == "unknown" else ["train"])
    if what == "gone":
        Path(train).unlink()
    if what == "changed":
        write("train.jsonl", words(4))
    data = training_data_of(str(run))
    assert data is not None
    assert data.state == state
    assert re.search(said, data.description)
    assert (data.sources is None) == (what == "gone")
    if what == "gone":
        suite = Suite(text={"prose": TextSet(train)})
        assert find_exposure(suite, Results(["tuned"]), "tuned", data).trained == {}


def test_model_outside_a_run_has_no_training_data(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "config.yaml").write_text("anything: else\n")
    for source in ("gpt2", str(tmp_path / "model"), str(tmp_path / "nowhere.ckpt")):
        assert training_data_of(source) is None
    assert training_data_of(str(make_run({"test": "x.json"}))) is None
    (tmp_path / "runs/mine/version_0/config.yaml").write_text("data: [1]\n")
    with pytest.raises(ValueError, match=r"config\.yaml: data: found a list"):
        training_data_of(str(tmp_path / "runs/mine/version_0"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"format": "alpacca"}, "--data.format alpacca: expected one of .*; did you mean alpaca?"),
        ({"val_fraction": float("nan")}, "--data.val_fraction nan --data.test_fraction 0.0: expected shares"),
    ],
)
def test_a_wrong_setting_in_a_runs_config_is_refused_with_the_file(
    make_run: Callable[..., Path], write: Write, setting: dict[str, Any], message: str
) -> None:
    run = make_run({"train": write("train.jsonl", words(2)), **setting})
    with pytest.raises(UserError, match=f"{re.escape(str(run / 'config.yaml'))}: {message}"):
        training_data_of(str(run))


def test_a_mixture_is_named_and_not_searched(make_run: Callable[..., Path], write: Write) -> None:
    mix = [{"name": "a", "files": write("a.jsonl", words(3))}, {"name": "b", "files": ["b.jsonl"]}]
    data = training_data_of(str(make_run({"mix": mix})))
    assert data is not None
    assert (data.sources, data.description) == (
        None,
        f"not searched: {mix[0]['files']}, b.jsonl (a mixture, --data.mix)",
    )


@pytest.mark.parametrize(
    ("version", "share", "state"), [("4", 0.5, "older"), ("4", 0.0, "unchanged"), ("5", 0.5, "unchanged")]
)
def test_runs_that_held_out_other_records_are_searched_in_full(
    make_run: Callable[..., Path], write: Write, monkeypatch: pytest.MonkeyPatch, version: str, share: float, state: str
) -> None:
    run = make_run({"train": write("train.jsonl", words(60)), "val_fraction": share}, knows=["train"])
    known = training_data._identity_of(run)
    monkeypatch.setattr(training_data, "_identity_of", lambda _: {**known, "version of the encoding": version})
    data = training_data_of(str(run))
    assert data is not None
    assert data.state == state
    assert data.sources is not None
    assert data.sources.shares == ({"val": share} if state == "unchanged" and share else {})
