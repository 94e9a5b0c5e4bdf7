"""A model that fails in every way: all articles end accepted, refused or failed, and nothing is paid for twice."""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_modules.errors import UserError
from lit_sft.endpoint import client
from lit_sft.endpoint.prices import Prices
from lit_sft.synthesis.command import main
from tests.lit_sft.stub_server import Draw, StubServer
from tests.lit_sft.synthesis.conftest import Run, StartStub
from tests.lit_sft.synthesis.faulty_writer import ASKED_AGAIN, CONTENT_FAULTS, FaultyWriter
from tests.lit_sft.synthesis.writer import english, rows_of, write_articles
from tests.waiting import wait_until

pytest.importorskip("openai")

CHECKS = [{"lengths": {"question": [1, 30]}}, "grounded", "duplicates"]
ATTEMPT_FAULTS = {"429": 0.06, "429 bare": 0.06, "500": 0.06, "drop": 0.06, "cut": 0.06}
HANGS = ATTEMPT_FAULTS | {"hang": 0.02}
RESULTS = ("pairs.jsonl", "refused.jsonl", "failed.jsonl")


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without waiting long."""
    monkeypatch.setattr(client, "_FIRST_PAUSE", 0.001)


def check_totals(summary: dict[str, Any], folder: Path, articles: set[str]) -> None:
    """Every article ends in exactly one way, every pair in one file, and the summary says how many."""
    pairs, refused, failed = (rows_of(folder / name) for name in RESULTS)
    ended = summary["subjects"]
    accepted_ids = {row["article_id"] for row in pairs}
    refused_ids = {row["article_id"] for row in refused} - accepted_ids
    failed_ids = {row["article_id"] for row in failed}
    assert ended["read"] == sum(count for name, count in ended.items() if name != "read")
    assert (ended["accepted"], ended["refused"]) == (len(accepted_ids), len(refused_ids))
    assert ended["failed"] == len(failed) == len(failed_ids)
    assert not failed_ids & (accepted_ids | refused_ids)
    if not ended["not_reached"]:
        assert accepted_ids | refused_ids | failed_ids == articles
    read = summary["pairs"]
    assert read["read"] == read["accepted"] + read["refused"]
    assert (read["accepted"], read["refused"]) == (len(pairs), len(refused))
    by_rule = Counter(row["rule"] for row in refused)
    assert {rule["name"]: rule["refused"] for rule in summary["rules"] if rule["refused"]} == by_rule
    assert sum(summary["failures"].values()) == len(failed)
    assert all(row["reason"] for row in [*refused, *failed])


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("seed", [0, 1])
def test_every_article_ends_accepted_refused_or_failed(
    start_stub: StartStub, run: Run, tmp_path: Path, seed: int
) -> None:
    writer = FaultyWriter(seed)
    server = start_stub(writer, Draw(seed, ATTEMPT_FAULTS))
    articles = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(60)])
    summary = run(server, {"retries": 20}, articles=articles, checks=CHECKS, attempts=2, seed=seed)
    check_totals(summary, tmp_path / "out", {f"house {n}" for n in range(60)})
    assert all(server.faults[fault] for fault in ATTEMPT_FAULTS), server.faults
    assert all(writer.faults[fault] for fault in CONTENT_FAULTS), writer.faults
    assert sum(summary["invalid"].values()) == sum(writer.faults[fault] for fault in ASKED_AGAIN)
    rules = {rule["name"]: rule["refused"] for rule in summary["rules"]}
    assert rules["grounded"] >= writer.faults["wrong number"]
    assert rules["duplicates"] + rules["grounded"] >= 4 * (writer.faults["repeated"] - 1)
    assert summary["subjects"]["not_reached"] == 0
    assert set(server.replies.values()) == {1}
    assert summary["usage"]["calls"] == len(server.replies)


@pytest.mark.usefixtures("short_pauses")
def test_requests_that_fail_are_asked_for_again_by_the_same_command(
    start_stub: StartStub, run: Run, tmp_path: Path
) -> None:
    server = start_stub(draw=Draw(0, {"400": 0.2}))
    articles = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(40)])
    summary = run(server, {"structured": "none"}, articles=articles)
    check_totals(summary, tmp_path / "out", {f"house {n}" for n in range(40)})
    assert summary["failures"] == {"request": summary["subjects"]["failed"]}
    assert 2 <= summary["subjects"]["failed"] <= 16
    server.draw = Draw()
    summary = run(server, {"structured": "none"}, articles=articles)
    assert summary["subjects"]["accepted"] == 40
    assert set(server.replies.values()) == {1}


@pytest.mark.usefixtures("short_pauses")
def test_a_server_that_dies_stops_the_run_and_later_the_rest_is_asked(
    start_stub: StartStub, run: Run, tmp_path: Path
) -> None:
    server = start_stub()
    articles = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(40)])
    server.dies_after = 15
    summary = run(server, {"concurrency": 4}, articles=articles)
    check_totals(summary, tmp_path / "out", set())
    assert 15 <= summary["subjects"]["accepted"] <= 18
    assert summary["subjects"]["not_reached"] >= 15
    assert "5 requests in a row" in summary["stopped"]
    assert "run the same command again" in summary["stopped"]
    server.dies_after = None
    summary = run(server, articles=articles)
    assert summary["subjects"]["accepted"] == 40
    assert set(server.replies.values()) == {1}
    assert not summary["stopped"]


@pytest.mark.parametrize("size", [0.3, 0.6])
def test_max_cost_is_never_exceeded_and_more_continues(
    start_stub: StartStub, run: Run, tmp_path: Path, size: float
) -> None:
    server = start_stub()
    articles = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(40)])
    model = {"prices": Prices(read=1.0, written=3.0), "max_tokens": 300}
    free = run(server, model, articles=articles, output=str(tmp_path / "free"))
    whole = free["usage"]["cost"]
    limit = whole * size
    summary = run(server, model, articles=articles, max_cost=limit)
    assert 0.3 * limit < summary["usage"]["cost"] <= limit
    assert summary["subjects"]["not_reached"] > 0
    assert "max_cost" in summary["stopped"]
    again = run(server, model, articles=articles, max_cost=limit)
    assert again["usage"]["calls"] == 0
    assert again["usage"]["cost"] == summary["usage"]["cost"]
    rest = run(server, model, articles=articles, max_cost=2 * whole)
    assert rest["usage"]["cost"] == pytest.approx(whole)
    assert rest["cost_per_accepted"] == pytest.approx(whole / rest["pairs"]["accepted"])
    assert (tmp_path / "out" / "pairs.jsonl").read_bytes() == (tmp_path / "free" / "pairs.jsonl").read_bytes()
    assert set(server.replies.values()) == {2}  # one for each folder


def arguments_of(server: StubServer, folder: Path, articles: str, **model: Any) -> list[str]:
    given = {"endpoint": server.address, "name": "m", "retries": 20, "concurrency": 4, "timeout": 5.0} | model
    return [
        "synthesize", "--output", str(folder), "--articles", articles, "--checks", json.dumps(CHECKS),
        *(part for name, value in given.items() for part in (f"--model.{name}", str(value))),
    ]  # fmt: skip


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "lit_sft", *arguments],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        stdout=subprocess.DEVNULL,
    )


def check_killed(tmp_path: Path, writer: FaultyWriter, server: StubServer, moments: list[int], size: int) -> None:
    """Kill a synthesis after some numbers of replies, let it end, and compare with one that was not killed."""
    articles = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(size)])
    arguments, journal = arguments_of(server, tmp_path / "killed", articles), tmp_path / "killed" / "journal.jsonl"
    unused = 0  # replies that came too late, or half into the journal, when a process was killed
    for moment in moments:
        process = start(arguments)
        try:
            wait_until(lambda least=moment: server.replies.total() >= least and journal.exists(), process)
        finally:
            process.kill()
            process.wait()
        wait_until(lambda: not server.under_way)
        lost = server.replies.total() - len(complete_keys(journal)) - unused
        assert 0 <= lost <= 4  # as many as are asked for at once
        unused += lost
    assert main(arguments) == 0
    keys = complete_keys(journal)
    assert len(keys) == len(set(keys)) == server.replies.total() - unused
    assert max(server.replies.values()) <= 1 + len(moments)
    assert sum(count - 1 for count in server.replies.values()) == unused
    assert main(arguments_of(server, tmp_path / "straight", articles)) == 0
    for name in RESULTS:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name
    assert rows_of(tmp_path / "killed" / "pairs.jsonl")
    assert sorted(each.name for each in (tmp_path / "killed").iterdir()) == sorted(
        each.name for each in (tmp_path / "straight").iterdir()
    )
    assert len(writer.faults) > 5


def complete_keys(journal: Path) -> list[str]:
    """Keys of the replies in a journal; half a line, as a kill leaves it, is none."""
    rows = []
    for line in journal.read_bytes().split(b"\n"):
        try:
            rows.append(json.loads(line))
        except ValueError:
            assert len(line) < 10_000
    return [row["key"] for row in rows if "key" in row]


@pytest.mark.usefixtures("short_pauses")
def test_killed_once_nothing_is_paid_for_twice(start_stub: StartStub, tmp_path: Path) -> None:
    writer = FaultyWriter()
    check_killed(tmp_path, writer, start_stub(writer, Draw(0, {"429": 0.2})), [20], 40)


@pytest.mark.slow
@pytest.mark.usefixtures("short_pauses")
def test_killed_at_ten_random_moments_nothing_is_paid_for_twice(start_stub: StartStub, tmp_path: Path) -> None:
    writer = FaultyWriter(3)
    moments = [*sorted(random.Random(0).sample(range(400), 9)), 455]
    check_killed(tmp_path, writer, start_stub(writer, Draw(3, HANGS)), moments, 400)


KEY = "sk-proj-Q7vXb2LmZ9"


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("is_offline", [False, True])
def test_credentials_are_in_no_file_log_or_page(
    start_stub: StartStub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    is_offline: bool,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)
    secrets = f"Bearer {KEY} carol p@ss-W0rd77 q-77-secret"
    inner = FaultyWriter(rates={"half": 0.2})
    server = start_stub(lambda body: inner(body).replace("?", f"? {secrets}" if "Alder" in str(body) else "?", 1))
    server.draw, server.message = Draw(0, {"400": 0.1, "429": 0.1, "500": 0.1}), secrets
    articles = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(40)])
    address = server.address.replace("//", "//carol:p%40ss-W0rd77@") + "?tenant=q-77-secret"
    arguments = arguments_of(server, tmp_path / "out", articles, endpoint=address)
    main(arguments)
    if is_offline:
        main([*arguments, "--offline", "true"])
    assert {head["authorization"][:6] for head in server.headers or []} == {"Basic "}
    captured = capsys.readouterr()
    files = {str(path): path.read_text("utf-8") for path in tmp_path.rglob("*") if path.is_file()}
    assert {Path(name).name for name in files} >= {*RESULTS, "journal.jsonl", "summary.json", "config.yaml"}
    texts = {**files, "log": caplog.text, "stdout": captured.out, "stderr": captured.err}
    for secret in ("carol", "W0rd", "q-77", "sk-proj", "Q7vX", "Y2Fyb2w6", "a-key"):
        assert not [name for name, text in texts.items() if secret in text], secret
    failed = rows_of(tmp_path / "out" / "failed.jsonl")
    assert {row["fault"] for row in failed} == {"credentials"} | ({"request"} if not is_offline else set())
    assert "***" in (tmp_path / "out" / "journal.jsonl").read_text()


def test_a_key_given_as_the_name_of_its_variable_is_in_no_file(
    start_stub: StartStub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    articles = write_articles(tmp_path / "a.jsonl", [english(n) for n in range(2)])
    arguments = arguments_of(start_stub(), tmp_path / "out", articles, key_variable=KEY)
    with pytest.raises(UserError, match=r"^--model: the environment variable named by key_variable is empty") as raised:
        main(arguments)
    assert main([*arguments, "--offline", "true"]) == 1
    files = [path.read_text("utf-8") for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in [*files, str(raised.value), *capsys.readouterr()] if "Q7vX" in text]
