"""Runs reported one by one: which of them are one arm, what each is called, and where the report goes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from lit_sft.__main__ import main
from lit_sft.ablation.collect import read_runs
from lit_sft.ablation.study_report import write_report
from tests.lit_sft.ablation.damaged import write_run


def run(path: Path, seed: int = 0, mask: str = "output_only") -> Path:
    return write_run(path, mask, seed)


def seeds_of(folders: list[Path]) -> dict[str, list[int]]:
    """The arms of runs, and the seeds of each."""
    found = read_runs(folders)
    assert not found.failures
    return {arm: sorted(seed for name, seed in found.results if name == arm) for arm in found.arms}


def test_a_copied_run_is_an_arm_of_its_own(tmp_path: Path) -> None:
    first = run(tmp_path / "runs" / "mine" / "version_0")
    copies = [tmp_path / "runs" / "mine" / "version_1", tmp_path / "runs" / "mine" / "copy", tmp_path / "tried"]
    for copy in copies:
        shutil.copytree(first, copy)
    arms = seeds_of([first, *copies])
    assert arms == {"mine/version_0": [0], "mine/version_1": [0], "copy": [0], "tried": [0]}


def test_renamed_runs_in_one_folder_keep_their_own_names(tmp_path: Path) -> None:
    assert seeds_of([run(tmp_path / "low", 0), run(tmp_path / "high", 1)]) == {"low": [0], "high": [1]}


def test_runs_with_the_same_name_get_enough_of_their_path_to_be_unique(tmp_path: Path) -> None:
    places = [tmp_path / place / "runs" / "mine" / "version_0" for place in ("a", "b")]
    assert seeds_of([run(place) for place in places]) == {"a/runs/mine/version_0": [0], "b/runs/mine/version_0": [0]}


def test_runs_with_the_same_name_but_different_settings_are_separate_arms(tmp_path: Path) -> None:
    folders = [
        run(tmp_path / "mine" / f"version_{number}", seed, mask)
        for number, (seed, mask) in enumerate([(0, "a"), (1, "a"), (0, "b"), (1, "b")])
    ]
    assert seeds_of(folders) == {"mine/version_0": [0, 1], "mine/version_2": [0, 1]}


@pytest.mark.parametrize("name", ["{arm}-seed{seed}/version_0", "{arm}-seed{seed}", "{arm}/version_{seed}"])
def test_runs_that_differ_in_their_seed_alone_are_one_arm(tmp_path: Path, name: str) -> None:
    folders = [
        run(tmp_path / name.format(arm=arm, seed=seed), seed, mask=arm) for seed in (0, 1) for arm in ("base", "other")
    ]
    assert seeds_of(folders) == {"base": [0, 1], "other": [0, 1]}


def test_the_settings_of_a_run_are_those_of_its_own_arm(tmp_path: Path) -> None:
    found = read_runs([run(tmp_path / "one", mask="a"), run(tmp_path / "two", mask="b")])
    assert found.settings == {"one": {"data.mask": "a"}, "two": {"data.mask": "b"}}


def test_a_comparison_leaves_the_reports_of_its_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second, third = (run(Path(place) / "version_0", mask=place) for place in ("base", "other", "far/other"))
    assert write_report([first]) == first / "report.html"
    own = {path: path.read_bytes() for path in first.iterdir() if path.is_file()}
    page = write_report([first, second])
    assert page.parent.parent == Path("runs/reports")
    assert page.parent.name.startswith("base_against_other-")
    assert {path: path.read_bytes() for path in first.iterdir() if path.is_file()} == own
    assert write_report([first, second]) == page
    assert write_report([first, third]) != page  # with the same names
    assert write_report([first, second], tmp_path / "here") == tmp_path / "here" / "report.html"


def test_skipped_run_gives_exit_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, out = [run(tmp_path / name) for name in ("one", "two")], str(tmp_path / "out")
    assert main(["report", *map(str, runs), "--output", out]) == 0
    (runs[1] / "result.json").unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["report", *map(str, runs), "--output", out])
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert said.err == (
        f"left out  {runs[1]}: not tested yet (no result.json); run `python -m lit_sft test {runs[1]}`\n"
    )
    assert said.out.endswith(f"\nreport  {out}/report.html\n")


@pytest.mark.parametrize("outer", ["runs", "runs/mine", "runs/study/trials"])
def test_a_folder_of_runs_is_not_a_run(outer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / outer / "mine-seed0" / "version_0")
    assert main(["report", str(tmp_path / outer)]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path / outer}: not a run folder (no config.yaml); expected a study, or a run such as" in said
    assert "lit_sft test" not in said


def test_one_folder_named_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = run(tmp_path / "one"), run(tmp_path / "two")
    again = tmp_path / "two" / ".." / "one"
    assert main(["report", str(one), str(again)]) == 2
    assert f"{one}, {again}: the same folder; name a second run to compare it with." in capsys.readouterr().err
    assert seeds_of([one, two, again]) == {"one": [0], "two": [0]}


def test_settings_with_keys_that_are_not_text_are_compared_too(tmp_path: Path) -> None:
    folders = [run(tmp_path / "runs" / "mine" / f"version_{seed}", seed) for seed in (0, 1)]
    for folder in folders:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["model"] = {None: 1, "backbone": 2}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert seeds_of(folders) == {"mine": [0, 1]}


def test_a_run_without_a_seed_is_left_out_with_the_reason(tmp_path: Path) -> None:
    folders = [run(tmp_path / name) for name in ("one", "two")]
    (folders[1] / "config.yaml").write_text(yaml.safe_dump({"data": {}}))
    assert list(read_runs(folders).failures) == [str(folders[1])]
