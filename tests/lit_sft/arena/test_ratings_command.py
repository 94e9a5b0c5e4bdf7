"""`ratings`: from files of votes to the terminal, the page and the JSON."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from io import StringIO
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lit_sft.__main__ import main
from lit_sft.arena.ratings_report import rate_votes
from lit_sft.reporting.page import print_summary
from lit_sft.votes import Vote, Voter, VoterKind, write_votes
from tests.lit_sft.arena.make_votes import vote

NAMES = ("tuned <b>", "base", "old")


def votes_by(kind: VoterKind, num: int, voters: int, strength: float) -> list[Vote]:
    """Votes on three models, the earlier ones better."""
    random, votes = np.random.default_rng(num), list[Vote]()
    for number in range(num):
        left, right = (int(player) for player in random.choice(3, 2, replace=False))
        shares = np.exp(np.array([strength * (right - left) / 2, strength * (left - right) / 2, -0.7, -1.5]))
        winner = ("left", "right", "tie", "both_bad")[random.choice(4, p=shares / shares.sum())]
        prompt, voter = f"Prompt {random.integers(40)}", f"{kind} {random.integers(voters)}"
        id = f"{kind}{number}"
        votes.append(vote(NAMES[left], NAMES[right], winner, id=id, prompt=prompt, voter=voter, kind=kind))  # type: ignore[arg-type]
    return votes


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    write_votes(Path("people.jsonl"), votes_by("person", 400, 20, 1.0))
    write_votes(Path("judge.jsonl"), votes_by("judge", 300, 1, 1.5))
    return ["people.jsonl", "judge.jsonl"]


def test_ratings_are_printed_and_written(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ratings", *files, "--pairs", "pairs.jsonl"]) == 0
    said = capsys.readouterr().out
    assert "People, 400 votes: “tuned <b>” is preferred to all 2 others." in said
    assert "Where both tell models apart, judge judge 0 agrees with people on 3 of 3 pairs." in said
    assert re.search(r"^tuned <b> +people +1,\d{3} ±\d+ +1 +\d+$", said, flags=re.MULTILINE)
    folder = Path("runs/ratings/people")
    assert f"report  {folder}/report.html" in said
    found = json.loads((folder / "ratings.json").read_text(), parse_constant=pytest.fail)
    assert list(found["groups"]) == ["people", "judge judge 0"]
    people = found["groups"]["people"]
    assert (people["votes"], people["voters"]) == (400, 20)
    best = people["models"][0]
    assert best["points"] == pytest.approx(1000 + found["points_per_logit"] * best["rating"]["value"])
    assert best["wins"] + best["losses"] + best["ties"] == best["votes"]
    assert people["pairs"][0]["told_apart"]
    assert sum(pair["direct"]["votes"] for pair in people["pairs"]) == 400
    assert (folder / "ratings.png").stat().st_size > 1000
    num = int(re.search(r"^pairs +pairs.jsonl: (\d+) pairs", said, flags=re.MULTILINE)[1])  # type: ignore[index]
    assert len(Path("pairs.jsonl").read_text().splitlines()) == num > 50


def test_ratings_by_people_and_several_judges_fit_into_a_terminal(files: list[str]) -> None:
    found = votes_by("judge", 300, 1, 1.0)
    second = [replace(each, id=f"{each.id} again", voter=Voter("judge", "another judge")) for each in found]
    write_votes(Path("second.jsonl"), second)
    rated = rate_votes([Path(each) for each in (*files, "second.jsonl")], Path("out"), voters="all", ties="davidson")
    shown = StringIO()
    print_summary(Console(width=80, file=shown), rated.report, rated.page)
    _, table = re.split(r"\n +voters +rating +rank +votes *\n", shown.getvalue())
    groups = ("people", "judge another judge", "judge judge 0")
    for line, (name, group) in zip(table.splitlines(), product(NAMES, groups), strict=False):
        assert re.fullmatch(rf"{name} +{group} +[\d,]+ ±\d+ +[123]( to [23])? +\d+ *", line), line


def test_the_page_shows_names_and_runs_nothing(files: list[str]) -> None:
    assert main(["ratings", *files, "--output", "out"]) == 0
    page = Path("out/report.html").read_text()
    assert "tuned &lt;b&gt;" in page
    assert "tuned <b>" not in page
    assert "<script" not in page
    assert "not yet told apart" in page or "told apart" in page
    assert 'src="data:image/png;base64,' in page
    assert "tuned &#60;b&#62;" in Path("out/report.md").read_text()


def test_ties_may_count_as_half_a_win(files: list[str]) -> None:
    points = {}
    for ties in ("davidson", "half"):
        assert main(["ratings", files[0], "--ties", ties, "--output", ties]) == 0
        found = json.loads(Path(ties, "ratings.json").read_text())
        assert found["ties"] == ties
        points[ties] = found["groups"]["people"]["models"][0]["points"]
    assert points["half"] < points["davidson"] - 5


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "VOTES: not given. Example: `python -m lit_sft ratings votes.jsonl`"),
        (["peple.jsonl"], "peple.jsonl: no such file; did you mean people.jsonl?"),
        (["evaluated"], "evaluated: this is a folder; expected a file of votes, such as votes.jsonl."),
        (["people.jsonl", "--pairs", "."], "--pairs .: this is a folder; expected the name of a file."),
        (["people.jsonl", "--voters", "judges"], "people.jsonl: no votes by judges; expected at least one."),
        (["people.jsonl", "--pairs", "./people.jsonl"], "--pairs ./people.jsonl: is read by this command, and"),
        (
            ["people.jsonl", "--output", "evaluated"],
            "--output evaluated: has the report of another command, which would",
        ),
        (["people.jsonl", "--ties", "third"], "--ties: invalid choice: 'third'"),
        (
            ["yaml.jsonl", "people.jsonl"],
            "yaml.jsonl:2: not valid JSON (Expecting value: line 1 column 1 (char 0)). Each line",
        ),
        (["half.jsonl"], "half.jsonl: no votes; expected at least one. 1 half-written line left out; the first: half"),
        (["rows.jsonl"], "rows.jsonl:1: no field 'format'. Each line is a vote as in docs/arena.md; correct the line"),
    ],
)
def test_mistakes_are_said_in_one_line(
    files: list[str], arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("yaml.jsonl").write_text("\ndata:\n  mask: answer\n")
    Path("half.jsonl").write_text('{"format": 1, "i')
    Path("rows.jsonl").write_text('{"instruction": "Who?"}\n')
    Path("evaluated").mkdir()
    Path("evaluated/report.html").write_text("earlier")
    assert main(["ratings", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"lit_sft ratings: {problem}")
    assert len(said.splitlines()) == 1
    assert not Path("runs").exists()
    assert [(path.name, path.read_text()) for path in Path("evaluated").iterdir()] == [("report.html", "earlier")]


def test_pairs_may_lie_next_to_the_report_and_replace_earlier_ones(files: list[str]) -> None:
    for _ in range(2):
        assert main(["ratings", *files, "--output", "new/out", "--pairs", "new/out/pairs.jsonl"]) == 0
    assert main(["ratings", *files, "--output", "new/out", "--pairs", "/dev/null"]) == 0
    assert Path("/dev/null").is_char_device()
    assert json.loads(Path("new/out/pairs.jsonl").read_text().splitlines()[0])["chosen_model"]


def test_what_was_left_out_is_said(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with Path(files[0]).open("a") as stream:
        stream.write('{"format": 1, "i')
    assert main(["ratings", files[0], "--output", "out"]) == 0
    assert "1 half-written line left out; the first: people.jsonl:401: not valid JSON (" in capsys.readouterr().err
    assert "1 half-written line left out" in Path("out/report.html").read_text()
