"""Making conversations end to end, against a stub model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_modules.errors import UserError
from data_modules.records.counts import RecordCounts
from data_modules.records.splits import Sources, keys_of, read_conversations
from lit_sft.__main__ import main
from lit_sft.files import digest
from tests.lit_sft.stub_server import Draw
from tests.lit_sft.synthesis.conftest import Run, StartStub
from tests.lit_sft.synthesis.writer import chinese, english, rows_of, write_articles, write_pairs

pytest.importorskip("openai")


def contents(row: dict[str, Any]) -> list[str]:
    return [message["content"] for message in row["messages"]]


def test_pairs_of_articles_with_provenance(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    articles = write_articles(tmp_path / "a.jsonl", [english(0), chinese(1)])
    summary = run(start_stub(), articles=articles)
    assert summary["subjects"] == {"read": 2, "accepted": 2, "refused": 0, "failed": 0, "not_reached": 0}
    assert summary["pairs"] == {"read": 8, "accepted": 8, "refused": 0}
    rows = rows_of(tmp_path / "out" / "pairs.jsonl")
    assert contents(rows[0]) == ["When was the Alder room 0 painted?", "It was in 1700."]
    assert contents(rows[-1]) == ["第13号房建于哪年？", "1707年。"]
    provenance = rows[-1].pop("provenance")
    assert rows[-1]["article_id"] == provenance.pop("article") == "house 1"
    assert len(provenance.pop("recipe_digest")) == 16
    assert provenance.pop("text_digest") == digest(chinese(1))
    assert provenance == {
        "origin": f"{articles}:2", "span": [0, len(chinese(1))], "language": "zh", "recipe": "pairs", "model": "m",
        "temperature": 0.7, "checks": ["duplicates"], "attempt": 1,
    }  # fmt: skip


def test_fit_reads_the_pairs_and_keeps_articles_together(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    run(start_stub(), articles=write_articles(tmp_path / "a.jsonl", [english(n) for n in range(40)]))
    counts = {split: RecordCounts() for split in ("train", "val")}
    sources = Sources({"train": [str(tmp_path / "out" / "pairs.jsonl")]}, fractions={"val": 0.3})
    groups = {
        split: {keys_of(conversation)[0] for conversation in read_conversations(split, sources, counts[split])}
        for split in counts
    }
    assert all(groups.values())
    assert groups["train"].isdisjoint(groups["val"])
    assert len(groups["train"] | groups["val"]) == 40
    assert counts["train"].unknown_fields == {}  # provenance is known


def test_prompts_are_in_the_language_of_the_article(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    server = start_stub()
    run(server, articles=write_articles(tmp_path / "a.jsonl", [english(0), chinese(1)]), model={"concurrency": 1})
    first, second = (body["messages"][0]["content"] for body in server.bodies or [])
    assert "Write questions and answers" in first
    assert "请根据下面的文章" in second


def test_article_in_another_language_fails_by_name(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    articles = write_articles(tmp_path / "a.jsonl", [english(0), "Паром уходит в девять часов утра.", "1802 - 1936"])
    summary = run(start_stub(), articles=articles)
    assert summary["failures"] == {"language": 2}
    failed, numbers = rows_of(tmp_path / "out" / "failed.jsonl")
    assert (failed["article_id"], failed["attempts"]) == ("house 1", 0)
    assert "mostly Cyrillic letters; recipe" in failed["reason"]
    assert numbers["reason"].startswith("language: the text has no letters; recipe pairs has prompts in en and zh.")


def test_invalid_reply_is_asked_again_with_the_reason(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    def write(body: dict[str, Any]) -> str:
        return "Certainly! Here they are." if len(body["messages"]) == 1 else write_pairs(body)

    server = start_stub(write)
    summary = run(server, articles=write_articles(tmp_path / "a.jsonl", [english(0)]))
    assert summary["attempts"] == {"1": 1, "2": 1}
    assert summary["invalid"] == {"not_json": 1}
    _, again = server.bodies or []
    roles = [message["role"] for message in again["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert again["messages"][1]["content"] == "Certainly! Here they are."
    assert "not a JSON object" in again["messages"][2]["content"]
    assert {row["provenance"]["attempt"] for row in rows_of(tmp_path / "out" / "pairs.jsonl")} == {2}


def test_article_fails_after_the_last_attempt(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    server = start_stub(lambda body: '{"pairs": []}')
    summary = run(server, articles=write_articles(tmp_path / "a.jsonl", [english(0)]), attempts=2)
    assert summary["subjects"]["failed"] == 1
    (failed,) = rows_of(tmp_path / "out" / "failed.jsonl")
    assert (failed["fault"], failed["attempts"], failed["reply"]) == ("wrong_count", 2, '{"pairs": []}')
    assert len(server.bodies or []) == 2


def test_empty_reply_is_asked_again_without_an_empty_message(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    server = start_stub(lambda body: "")
    run(server, articles=write_articles(tmp_path / "a.jsonl", [english(0)]))
    assert [len(body["messages"]) for body in server.bodies or []] == [1, 1, 1]
    assert len({body["seed"] for body in server.bodies or []}) == 3


def test_same_command_again_asks_nothing_and_writes_the_same(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    articles, server = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(6)]), start_stub()
    run(server, articles=articles)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.name != "summary.json"}
    summary = run(server, articles=articles)
    assert (summary["usage"]["calls"], summary["usage"]["from_journal"]) == (0, 6)
    assert len(server.bodies or []) == 6
    assert {name: (tmp_path / "out" / name).read_bytes() for name in before} == before


def test_model_that_never_writes_the_form_is_stopped_after_twenty_articles(
    start_stub: StartStub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    articles = write_articles(tmp_path / "a.jsonl", ["Паром", *[english(n) for n in range(40)]])
    server = start_stub(lambda body: "Certainly!")
    given = ["--output", str(tmp_path / "out"), "--articles", articles, "--model.endpoint", server.address]
    arguments = ["synthesize", *given, "--model.name", "m", "--attempts", "2"]
    texts = []
    for _ in range(2):
        assert main(arguments) == 1
        out, err = capsys.readouterr()
        assert out.splitlines()[0] == "41 articles: 0 accepted, 0 refused, 21 failed, 20 not reached"
        assert "no reply about the first 20 articles has the form" in err
        assert "what was wrong with the first: it is not a JSON object (Expecting value" in err
        texts.append((tmp_path / "out" / "failed.jsonl").read_bytes())
        assert len(server.bodies or []) == 40
    assert texts[0] == texts[1]
    assert len(texts[0].splitlines()) == 21


def test_one_reply_with_the_form_among_the_first_twenty_is_enough(
    start_stub: StartStub, run: Run, tmp_path: Path
) -> None:
    articles = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(30)])
    server = start_stub(lambda body: write_pairs(body) if english(19) in str(body) else "Certainly!")
    summary = run(server, articles=articles, attempts=1, model={"concurrency": 32})
    assert (summary["subjects"]["accepted"], summary["subjects"]["failed"]) == (1, 29)
    assert summary["stopped"] == ""


def test_when_everything_fails_the_commonest_reason_is_said(
    start_stub: StartStub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    articles = write_articles(tmp_path / "a.jsonl", ["Паром", *[english(n) for n in range(3)]])
    given = ["--output", str(tmp_path / "out"), "--articles", articles, "--model.name", "m"]
    server = start_stub(lambda body: '{"pairs": []}')
    server.usage = lambda body, text: None
    assert main(["synthesize", *given, "--model.endpoint", server.address]) == 1
    out, err = capsys.readouterr()
    expected = "every article failed, most with wrong_count: 'pairs' has 0; expected 3 to 6;"
    assert f"{expected} {tmp_path / 'out' / 'failed.jsonl'} has all" in err
    assert "9 replies, 0 of them from the journal; tokens unknown (the endpoint reports none); cost unknown" in out


def test_a_start_without_any_reply_promises_none(
    start_stub: StartStub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    articles = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(12)])
    server = start_stub(draw=Draw(0, {"drop": 1.0}))
    given = ["--output", str(tmp_path / "out"), "--articles", articles, "--model.name", "m", "--model.retries", "0"]
    own = ["--model.concurrency", "1", "--model.endpoint", server.address]
    assert main(["synthesize", *given, *own]) == 1
    out, err = capsys.readouterr()
    assert "No reply has come so far; run the same command again" in err
    assert "journal.jsonl" not in err
    assert [line.split(maxsplit=2)[2] for line in out.splitlines()[-2:]] == ["(empty)", "(it shows why there are none)"]
    assert "<img" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    server.draw = Draw(0, {"400": 1.0})
    assert main(["synthesize", *given, *own, "--max_articles", "2"]) == 1
    assert f"{tmp_path / 'out' / 'failed.jsonl'} has all reasons\n" in capsys.readouterr().err


def test_changed_checks_need_no_request(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    articles, server = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(3)]), start_stub()
    run(server, articles=articles)
    asked = len(server.bodies or [])
    summary = run(server, articles=articles, checks=[{"lengths": {"question": [1, 3]}}])
    assert len(server.bodies or []) == asked
    assert summary["subjects"] == {"read": 3, "accepted": 0, "refused": 3, "failed": 0, "not_reached": 0}
    assert summary["rules"][0]["refused"] == summary["pairs"]["refused"] == 12
    refused = rows_of(tmp_path / "out" / "refused.jsonl")
    assert {(row["rule"], row["reason"]) for row in refused} == {("lengths", "question of 7 words; expected 1 to 3")}
    assert (tmp_path / "out" / "pairs.jsonl").read_bytes() == b""


def test_long_article_is_cut_or_split_and_spans_say_where(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    text = english(0, facts=13)
    articles, server = write_articles(tmp_path / "a.jsonl", [text]), start_stub()
    run(server, articles=articles, max_characters=200)
    run(server, articles=articles, max_characters=200, long_articles="split", output=str(tmp_path / "split"))
    cut = rows_of(tmp_path / "out" / "pairs.jsonl")
    split = rows_of(tmp_path / "split" / "pairs.jsonl")
    assert (len(cut), len(split)) == (5, 13)
    spans = list(dict.fromkeys(tuple(row["provenance"]["span"]) for row in split))
    assert [text[start:stop] for start, stop in spans] == [
        " ".join(f"{sentence}." for sentence in text.rstrip(".").split(". ")[at : at + 5]) for at in (0, 5, 10)
    ]
    assert {row["article_id"] for row in split} == {"house 0"}


def test_max_articles_reads_the_first(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    articles = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(5)])
    assert run(start_stub(), articles=articles, max_articles=2)["subjects"]["read"] == 2


def test_another_process_in_the_folder_is_refused(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    from lit_sft.locks import FileLock

    articles = write_articles(tmp_path / "a.jsonl", [english(0)])
    (tmp_path / "out").mkdir()
    with (
        FileLock(tmp_path / "out" / "synthesis.lock", str),
        pytest.raises(UserError, match=r"out: in use by process \d+"),
    ):
        run(start_stub(), articles=articles)


def test_nothing_half_written_after_a_failure(start_stub: StartStub, run: Run, tmp_path: Path) -> None:
    articles, server = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(3)]), start_stub()
    run(server, articles=articles)
    before = (tmp_path / "out" / "pairs.jsonl").read_bytes()
    with (tmp_path / "a.jsonl").open("a") as stream:
        stream.write('{"text": ""}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:4: the text is empty.*--on_invalid drop"):
        run(server, articles=articles)
    assert (tmp_path / "out" / "pairs.jsonl").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.yaml", "datasheet.md", "failed.jsonl", "journal.jsonl", "pairs.jsonl", "refused.jsonl", "report.html",
        "summary.json",
    ]  # fmt: skip
    summary = run(server, articles=articles, on_invalid="drop")
    assert (summary["subjects"]["read"], summary["invalid_records"]["count"]) == (3, 1)


def test_command_says_what_came_of_it(
    start_stub: StartStub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text(json.dumps({"text": english(0), "title": "A house"}) + "\n", encoding="utf-8")
    Path("config.yaml").write_text("output: out\nchecks: [{lengths: {answer: [1, 3]}}]\n", encoding="utf-8")
    given = ["--config", "config.yaml", "--articles", "a.jsonl", "--model.endpoint", start_stub().address]
    prices = ["--model.name", "m", "--model.prices", "{read: 1000, written: 1000}"]
    assert main(["synthesize", *given, *prices]) == 0
    out, err = capsys.readouterr()
    assert "a.jsonl: fields that are not used: title" in err
    first, second, rule, replies, *written = out.splitlines()
    assert first == "1 article: 0 accepted, 1 refused, 0 failed, 0 not reached"
    assert (second, rule) == ("4 conversations made: 0 accepted, 4 refused", "  lengths: 4 of 4 refused")
    assert replies.startswith("1 reply, 0 of them from the journal; ")
    usage = json.loads(Path("out/summary.json").read_text(encoding="utf-8"))["usage"]
    assert usage["cost"] == (usage["tokens_read"] + usage["tokens_written"]) / 1000
    assert replies.endswith(f"cost {usage['cost']:.4g} USD")
    assert [line.split()[:2] for line in written] == [["pairs", "out/pairs.jsonl"], ["page", "out/report.html"]]
