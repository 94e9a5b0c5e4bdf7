"""Starts in a folder that has pairs: they stay if nothing was made, and a start that leaves fewer says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from lit_sft.__main__ import main
from lit_sft.synthesis.earlier import NothingNewError
from tests.lit_sft.stub_server import Draw
from tests.lit_sft.synthesis.conftest import Run, StartStub
from tests.lit_sft.synthesis.writer import english, rows_of, write_articles, write_pairs

pytest.importorskip("openai")


def test_offline_uses_the_replies_of_that_model_only(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    articles, server = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(6)]), start_stub()
    run(server, articles=articles, max_articles=4)
    summary = run(server, articles=articles, offline=True)
    assert summary["subjects"] == {"read": 6, "accepted": 4, "refused": 0, "failed": 0, "not_reached": 2}
    assert len(rows_of(tmp_path / "out" / "pairs.jsonl")) == 16
    assert summary["stopped"].startswith("--offline true: the journal lacks replies for 2 of 6 articles with these")
    before = contents_of(tmp_path / "out")
    with pytest.raises(NothingNewError, match=r"6 of 6 articles lack replies.*keeps its 16 earlier pairs.*offline"):
        run(server, articles=articles, offline=True, model={"name": "other"})
    assert contents_of(tmp_path / "out") == before
    assert len(server.bodies or []) == 4


def contents_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_start_without_replies_keeps_the_pairs_of_earlier_ones(
    start_stub: StartStub, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    articles, server = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(6)]), start_stub()
    assert run(server, articles=articles)["pairs"]["accepted"] == 24
    before = contents_of(tmp_path / "out")
    with pytest.raises(NothingNewError, match=r"6 of 6 articles lack replies, .* keeps its 24 earlier pairs"):
        run(server, articles=articles, offline=True, checks=["judge", "duplicates"])
    server.draw = Draw(0, {"400": 1.0})
    with pytest.raises(NothingNewError, match=r"The first failed request: .*400"):
        run(server, articles=articles, model={"temperature": 0.1})
    server.draw = Draw(0, {"drop": 1.0})
    with pytest.raises(NothingNewError, match=r"Requests stopped: 5 requests in a row"):
        run(server, articles=articles, model={"temperature": 0.2, "concurrency": 1})
    own = ["--output", str(tmp_path / "out"), "--articles", articles, "--model.endpoint", server.address]
    assert main(["synthesize", *own, "--model.name", "m", "--offline", "true", "--seed", "3"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    after = contents_of(tmp_path / "out")
    assert {name: text for name, text in after.items() if name != "journal.jsonl"} == {
        name: text for name, text in before.items() if name != "journal.jsonl"
    }


def test_fewer_pairs_for_want_of_replies_are_said(
    start_stub: StartStub, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    articles, server = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(6)]), start_stub()
    run(server, articles=articles)
    run(server, articles=articles, seed=1, max_articles=2, output=str(tmp_path / "other"))
    replies = (tmp_path / "other" / "journal.jsonl").read_bytes()
    with (tmp_path / "out" / "journal.jsonl").open("ab") as stream:
        stream.write(replies)
    capsys.readouterr()
    assert run(server, articles=articles, seed=1, offline=True)["pairs"]["accepted"] == 8
    assert "pairs.jsonl: had 24 pairs, has 8 now; 4 of 6 articles lack replies" in capsys.readouterr().out


def test_model_without_a_valid_reply_keeps_the_pairs(
    start_stub: StartStub, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    articles, server = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(3)]), start_stub()
    run(server, articles=articles)
    before = contents_of(tmp_path / "out")
    server.write = lambda body: "Certainly!"
    expected = r"^every article failed, so .* keeps its 12 earlier pairs.* Most with not_json: it is not a JSON object"
    with pytest.raises(NothingNewError, match=expected):
        run(server, articles=articles, seed=1)
    after = contents_of(tmp_path / "out")
    assert len(after.pop("journal.jsonl").splitlines()) > len(before.pop("journal.jsonl").splitlines())
    assert after == before


def test_checks_that_refuse_everything_are_applied_and_said(
    start_stub: StartStub, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    articles, server = write_articles(tmp_path / "a.jsonl", [english(0)]), start_stub()
    run(server, articles=articles)
    capsys.readouterr()
    run(server, articles=articles, checks=[{"lengths": {"question": [1, 3]}}])
    assert rows_of(tmp_path / "out" / "pairs.jsonl") == []
    assert len(rows_of(tmp_path / "out" / "refused.jsonl")) == 4
    out = capsys.readouterr().out
    assert 'pairs.jsonl: had 4 pairs, has 0 now; other settings: --checks (was ["duplicates"]). All replies' in out
    run(server, articles=articles)
    assert len(rows_of(tmp_path / "out" / "pairs.jsonl")) == 4
    assert len(server.bodies or []) == 1
    assert "had" not in capsys.readouterr().out


def test_fewer_pairs_by_another_seed_and_by_replies_without_the_form(
    start_stub: StartStub, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    articles, server = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(3)]), start_stub()
    run(server, articles=articles)
    capsys.readouterr()
    server.write = lambda body: write_pairs(body) if english(0) in str(body) else "Certainly!"
    run(server, articles=articles, model={"concurrency": 2, "temperature": 0.0}, attempts=1)
    expected = (
        "had 12 pairs, has 4 now; 2 of 3 articles failed, most with not_json; other settings: --attempts (was 3), "
        "--model.temperature (was 0.7). All replies are still in"
    )
    assert expected in capsys.readouterr().out


def test_fewer_articles_give_fewer_pairs(
    start_stub: StartStub, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    articles, server = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(3)]), start_stub()
    run(server, articles=articles)
    capsys.readouterr()
    write_articles(tmp_path / "a.jsonl", [english(0)])
    (tmp_path / "out" / "summary.json").write_text("{")
    run(server, articles=articles)
    assert "had 12 pairs, has 4 now; the files, the recipe or the rules have changed. All" in capsys.readouterr().out
    write_articles(tmp_path / "a.jsonl", [english(n) for n in range(3)])
    run(server, articles=articles)
    write_articles(tmp_path / "a.jsonl", [english(0)])
    run(server, articles=articles)
    assert "had 12 pairs, has 4 now; 3 articles then, 1 now. All replies" in capsys.readouterr().out
