"""Damaged run folders and studies: either a report of the rest that names what is missing, or a one-line error."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from lit_sft.__main__ import main
from lit_sft.ablation.collect import read_study_folder
from lit_sft.ablation.run_files import read_trial, short_names
from lit_sft.ablation.study import Arm, Study, Trial, read_study
from lit_sft.ablation.study_report import write_report
from lit_sft.ablation.trials import TrialFiles
from lit_sft.checkpoints.digests import add_digest, written_digest
from lit_sft.evaluation.suite_file import read_suite
from lit_sft.reporting.page import escaped_markdown
from tests.lit_sft.ablation.damaged import CASES, STUDY, SUITE, damage, odd_settings, write_run, write_study, write_text


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are still drawn, at a low resolution."""
    monkeypatch.setattr("lit_sft.reporting.pictures._DPI", 20)
    monkeypatch.setattr("matplotlib.figure.Figure.tight_layout", lambda figure: None)


TRIALS = [f"{arm}, seed {seed}" for arm in ("base", "other", "fails") for seed in (0, 1)]


def check(folder: Path, case: tuple[str, str, int], capsys: pytest.CaptureFixture[str]) -> None:
    study = write_study(folder)
    damage(study / case[0], *case[1:])
    status = main(["report", str(study)])
    said = capsys.readouterr()
    assert status in (0, 2)
    if status:
        assert len(said.err.strip().splitlines()) == 1
        assert len(said.err) < 1500
        return
    assert all(line.startswith("left out") for line in said.err.splitlines())
    page = (study / "report.md").read_text(encoding="utf-8")
    found = read_study_folder(study)
    if case[0] != "study.json":
        accounted = {f"{arm}, seed {seed}" for arm, seed in found.results} | found.failures.keys()
        assert accounted == set(TRIALS)
    for name, reason in found.failures.items():
        assert escaped_markdown(name) in page
        assert reason.strip()


SOME = [case for case in CASES if re.search("study|failure|config|result|trial\\.json|records|loss", case[0])][::6]


@pytest.mark.parametrize("case", SOME, ids=lambda case: f"{case[0].rpartition('/')[2]} {case[1]} {case[2]}")
def test_damaged_file_fails_its_trial_or_ends_in_a_one_line_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: tuple[str, str, int]
) -> None:
    check(tmp_path, case, capsys)


@pytest.mark.parametrize("file", ["test_records", "test_answers", "loss_modes", "samples"])
def test_a_line_that_a_killed_process_left_half_written_does_not_lose_its_trial(tmp_path: Path, file: str) -> None:
    study = write_study(tmp_path)
    whole = metrics(study)
    path = study / "trials" / "other-seed1" / "version_0" / f"{file}.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    found = read_study_folder(study)
    assert ("other", 1) in found.results
    cut = metrics(study)
    assert cut.keys() == whole.keys()
    lost = {key for key in whole if cut[key] != whole[key]}
    expected = {"test_records": {"whole_sequence", "output_only"}, "test_answers": {"exact_match", "rougeL_mixed"}}
    assert {metric for _, metric, arm in lost if arm == "other"} == expected.get(file, set())
    assert all(int(cut[key][-2]) == 3 for key in lost)  # the records, out of four, that all trials have
    page = (study / "report.md").read_text(encoding="utf-8")
    assert "Some lines of the results could not be read" in page
    assert escaped_markdown(f"1 line could not be read: {path}:") in page


def test_different_records_are_refused_even_in_a_damaged_trial(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    path = study / "trials" / "other-seed1" / "version_0" / "test_records.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0].replace(": 3", ": 4"), *lines[1:3], lines[3][:-9]]))
    assert ("difference", "output_only", "other") not in metrics(study)
    # two lines are missing, but only one is reported as damaged
    path.write_text("\n".join([*lines[:2], lines[2][:-9]]))
    assert ("difference", "output_only", "other") not in metrics(study)


def test_a_run_named_twice_counts_once_and_paths_may_be_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = [str(tmp_path / "data" / "test.json"), "data/test.json"]
    runs = [
        write_run(tmp_path / "runs" / arm / "version_0", arm, 0, tests)
        for arm, tests in zip(("base", "other"), data, strict=True)
    ]
    relative = [run.relative_to(tmp_path) for run in runs]
    page = write_report([relative[0], *runs, relative[1]], tmp_path / "out").with_suffix(".md").read_text()
    assert "not comparable" not in page
    assert "no result" not in page
    assert "difference,output_only,other" in (tmp_path / "out" / "report.csv").read_text()
    assert "## Answers to test records, seed 0" in page


@pytest.mark.parametrize("name", ["examples", "tokens", "supervised_tokens", "seconds", "peak_bytes"])
def test_a_cost_that_is_null_leaves_its_cell_empty(tmp_path: Path, name: str) -> None:
    study = write_study(tmp_path)
    path = study / "trials" / "other-seed1" / "version_0" / "trial.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: None}))
    page = write_report([study]).with_suffix(".md").read_text(encoding="utf-8")
    costs = page.partition("## Training cost")[2].partition("##")[0].splitlines()
    (row,) = [line for line in costs if line.startswith("| other |")]
    assert "|  |" in row
    assert "nan" not in row
    (row,) = [line for line in costs if line.startswith("| base |")]
    assert "|  |" not in row


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a.json", "b.json"], ["a.json", "b.json"]),
        (["/a.json", "/b.json"], ["a.json", "b.json"]),
        (["x/a.json", "x/y/b.json"], ["a.json", "y/b.json"]),
        (["/data/x/a.json", "x/b.json"], ["/data/x/a.json", "x/b.json"]),
        (["hub/name", "x/b.json"], ["hub/name", "x/b.json"]),
        (["only/one.json"], ["one.json"]),
        ([], []),
    ],
)
def test_files_are_named_without_the_folders_that_they_share(files: list[str], names: list[str]) -> None:
    assert list(short_names(files).values()) == names


def test_study_continues_despite_damaged_files(tmp_path: Path) -> None:
    trial = Trial(Arm("a", {}), 0, tmp_path)
    files = TrialFiles(Study("s", [], axes={"data.mask": ["whole_sequence", "output_only"]}), trial)
    assert (files.progress(), files.failure()) == ({}, None)
    write_text(files.run / "trial.json", '{"step": 3, "of')
    write_text(tmp_path / "failure.json", "[")
    assert (files.progress(), files.failure()) == ({}, "unknown reason")
    files.clear_failure(include_runs=True)
    assert files.failure() is None


def metrics(study: Path) -> dict[tuple[str, ...], list[str]]:
    """The lines of a study's table: a mapping from (kind, metric, arm) to the numbers."""
    write_report([study])
    with (study / "report.csv").open(encoding="utf-8", newline="") as stream:
        return {tuple(row[:3]): row[3:] for row in csv.reader(stream)}


def check_settings(path: Path, number: int) -> None:
    for base, read in ((SUITE, read_suite), (STUDY, read_study)):
        path.write_text(odd_settings(base, number), encoding="utf-8", errors="backslashreplace")
        try:
            found = read(str(path))
        except (ValueError, OSError) as error:
            shown = str(error)
            refused = str(path) in shown
        else:
            shown, refused = repr(found), False
        assert refused or shown.startswith(("Suite(", "Study("))
        assert "\n" not in shown
        assert "pass-77" not in shown


def test_odd_suites_and_studies_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    for number in range(25):
        check_settings(tmp_path / "odd.yaml", number)


@pytest.mark.slow
def test_many_odd_suites_and_studies_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    for number in range(25, 500):
        check_settings(tmp_path / "odd.yaml", number)


@pytest.mark.slow
def test_every_damaged_file_fails_its_trial_or_ends_in_a_one_line_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(CASES) > 300
    for number, case in enumerate(CASES):
        folder = tmp_path / str(number)
        try:
            check(folder, case, capsys)
        except BaseException as error:
            raise AssertionError(f"{case}: {error!r}") from error
        shutil.rmtree(folder)


def test_a_result_of_weights_that_training_has_replaced_is_not_reported(tmp_path: Path) -> None:
    run = write_run(tmp_path / "arm" / "version_0", "base", 0)
    checkpoint = run / "checkpoints" / "best.ckpt"
    checkpoint.parent.mkdir(exist_ok=True)
    for weights in (1.0, 2.0):
        torch.save({"state_dict": {"w": torch.full((4,), weights)}}, checkpoint)
        add_digest(checkpoint)
        if weights == 1.0:
            result = json.loads((run / "result.json").read_text())
            result |= {"checkpoint": str(checkpoint), "checkpoint_digest": written_digest(checkpoint)}
            (run / "result.json").write_text(json.dumps(result))
            assert read_trial(run / "result.json", "base") is not None
    with pytest.raises(ValueError, match=r"result\.json: out of date: best\.ckpt has changed since it was tested"):
        read_trial(run / "result.json", "base")
    checkpoint.unlink()
    assert read_trial(run / "result.json", "base") is not None  # there is nothing left to compare with
