"""Pairwise judging by an endpoint that fails in every way endpoints do, and by a local model."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_modules.encoding.encoder import Encoder
from data_modules.encoding.example import Example
from data_modules.records.conversation import Conversation
from lit_sft.evaluation.judge import EndpointJudge, LikelihoodJudge, Verdict, parse_winner
from lit_sft.evaluation.suite import JudgeSettings
from lit_sft.evaluation.win_rate import JudgedPair, Pair, SetVerdicts, judge_pairs, length_controlled_rate, rate
from lit_sft.files import append_line, digest
from tests.lit_sft.evaluation.conftest import MakeModel
from tests.lit_sft.evaluation.fake_endpoint import Endpoint, judged, pairs, prefer_longer
from tests.lit_sft.real_server import real_server
from tests.waiting import wait_until

pytest.importorskip("openai")


def test_every_fault_is_retried_and_every_item_accounted_for(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.faults = {f"number{n}.": fault for n, fault in enumerate(("429", "500", "hang", "truncated"))}
    endpoint.faults |= {"number4.": "always malformed", "number5.": "always 500", "number6.": "always empty"}
    found = judged(endpoint, tmp_path, pairs(12), timeout=5.0)
    missing = {each.pair.item for each in found.judged if each.score is None}
    assert missing == {"i4", "i5", "i6"}
    assert len(found.scores) + len(missing) == len(found.judged) == 12
    assert found.count(unparsed=False) == 6
    assert all(each.row()["reason"] for each in found.judged if each.score is None)
    assert all(score == (1.0 if int(item[1:]) % 3 else 0.5) for item, score in found.scores.items())
    endpoint.faults.clear()
    asked = len(endpoint.requests)
    again = judged(endpoint, tmp_path, pairs(12))
    assert len(endpoint.requests) == asked + 6  # only the failed pairs, in both orders
    assert len(again.scores) == 12


def test_a_reply_without_a_verdict_is_counted_and_not_paid_for_again(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.reply = lambda prompt: "Both are fine." if "number1." in prompt else prefer_longer(prompt)
    for _ in range(2):
        found = judged(endpoint, tmp_path, pairs(3), price_read=2.0, price_written=50.0)
        assert found.count(unparsed=True) == 2
        assert sorted(found.scores) == ["i0", "i2"]
        assert found.cost == pytest.approx(6 * (100 * 2 + 10 * 50) / 1e6)
    assert len(endpoint.requests) == 6


def test_replies_that_an_earlier_version_kept_are_used(endpoint: Endpoint, tmp_path: Path) -> None:
    judged(endpoint, tmp_path / "new", pairs(2))
    replies = tmp_path / "old" / "replies.jsonl"
    replies.parent.mkdir()
    for prompt in endpoint.requests:
        key = digest([endpoint.address, "m", 64, prompt])
        append_line(replies, {"key": key, "text": '{"winner": "tie"}', "tokens_read": 5, "tokens_written": 1})
    assert judged(endpoint, tmp_path / "old", pairs(2)).scores == {"i0": 0.5, "i1": 0.5}
    assert len(endpoint.requests) == 4


@pytest.mark.parametrize(
    ("verdicts", "score", "agreement"),
    [
        (("first", "second"), 0.0, 1.0), (("second", "first"), 1.0, 1.0), (("tie", "tie"), 0.5, 1.0),
        (("first", "first"), 0.5, 0.0), (("tie", "first"), 0.75, 0.0), (("first", "tie"), 0.25, 0.0),
    ],
)  # fmt: skip
def test_verdicts_of_both_orders_make_a_score(verdicts: tuple[Any, Any], score: float, agreement: float) -> None:
    judging = SetVerdicts([JudgedPair(Pair("i", "q", "a", "b"), *map(Verdict, verdicts))])
    assert judging.scores == {"i": score}
    assert judging.agreement == agreement


@pytest.mark.parametrize("reply", ['{"winner": "A"}', '{"winner": "B"}', '{"winner": "tie"}'])
def test_identical_answers_get_half_whatever_the_judge_prefers(endpoint: Endpoint, tmp_path: Path, reply: str) -> None:
    endpoint.reply = lambda prompt: reply
    alike = [Pair(f"i{n}", f"question {n}", "same", "same") for n in range(5)]
    found = judged(endpoint, tmp_path, alike, price_read=2.0, price_written=50.0)
    assert found.cost == pytest.approx(5 * (100 * 2 + 10 * 50) / 1e6)
    assert set(found.scores.values()) == {0.5}
    assert len(endpoint.requests) == 5  # both orders are one and the same request
    estimate = rate(found)
    assert estimate is not None
    assert estimate.value == 0.5
    assert found.first_share == {"A": 1.0, "B": 0.0, "t": 0.5}[reply[12]]


def test_no_more_requests_at_once_than_allowed(endpoint: Endpoint, tmp_path: Path) -> None:
    judged(endpoint, tmp_path, pairs(20), concurrency=3)
    assert 1 <= endpoint.most_at_once <= 3


def test_killed_judging_resumes_without_repeating_requests(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path.cwd())!r})
from pathlib import Path
from data_modules.records.conversation import Conversation
from data_modules.encoding.encoder import Encoder
from data_modules.encoding.example import Example
from lit_sft.evaluation.judge import EndpointJudge
from lit_sft.evaluation.suite import JudgeSettings
from lit_sft.evaluation.win_rate import Pair, judge_pairs
settings = JudgeSettings(sets=[], model="m", endpoint={endpoint.address!r}, timeout=600.0, retries=2)
pairs = [Pair(f"i{{n}}", f"question number{{n}}.", "short", "long answer" if n % 3 else "brief") for n in range(200)]
judge_pairs(EndpointJudge(settings, Path({str(tmp_path / "replies.jsonl")!r})), pairs, 4, lambda: None)
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_until(lambda: len(endpoint.requests) >= 100, process)
    finally:
        process.kill()
        process.wait()
    lines = (tmp_path / "replies.jsonl").read_text().splitlines()
    # as a killed process may leave it
    (tmp_path / "replies.jsonl").write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:30])
    kept = len(lines) - 1
    monkeypatch.setenv("OPENAI_API_KEY", "second")  # identifies the sender: requests in flight may arrive at any time
    found = judged(endpoint, tmp_path, pairs(200))
    assert len(found.scores) == 200
    second = [authorization for _, authorization in endpoint.seen].count("Bearer second")
    assert second == 400 - kept
    assert len(endpoint.seen) - second - len(lines) <= 4  # requests in flight when it was killed
    assert max(Counter(endpoint.requests).values()) <= 2
    asked = len(endpoint.requests)
    assert len(judged(endpoint, tmp_path, pairs(200), timeout=5.0).scores) == 200
    assert len(endpoint.requests) == asked  # lines after the half-written one are kept too


@pytest.mark.parametrize(
    ("reply", "winner"),
    [
        ('{"winner": "A"}', "first"),
        ('Sure.\n```json\n{"winner" : "b", "why": "better"}\n```', "second"),
        ('{"winner": "Tie"}', "tie"),
        ('{"winner": "A"} or rather {"winner": "B"}', None),
        ('{"winner": "C"}', None),
        ('{"winner": "A', None),
        ("A", None),
        ("", None),
    ],
)
def test_only_a_clear_verdict_is_one(reply: str, winner: str | None) -> None:
    assert parse_winner(reply) == winner


def test_a_local_model_prefers_what_it_finds_likelier(make_model: MakeModel) -> None:
    judge = LikelihoodJudge(make_model("llama"))
    assert judge("Who?", "me", "me").winner == "tie"
    one, other = judge("Who?", "me", "a b c d").winner, judge("Who?", "a b c d", "me").winner
    assert {one, other} == {"first", "second"}
    assert judge("Who?", "", "me").winner == "second"


def test_a_local_judge_encodes_one_answer_at_a_time(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    meeting, met = threading.Barrier(2), threading.Event()
    encode = Encoder.encode

    def watched(encoder: Encoder, conversation: Conversation, ledger: Any = None) -> list[Example]:
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(0.3)  # long enough for a second thread to enter the tokenizer
            met.set()
        return encode(encoder, conversation, ledger)

    judge = LikelihoodJudge(make_model("llama"))
    some = [Pair(f"i{n}", f"Who {n}?", "me", "a b c d") for n in range(4)]
    alone = [judge(pair.question, pair.base, pair.other).winner for pair in some]
    monkeypatch.setattr(Encoder, "encode", watched)
    together = judge_pairs(judge, some, 4, lambda: None)
    assert not met.is_set()
    assert [each.base_first.winner for each in together] == alone


@pytest.mark.parametrize("answer", ["\ud800", "x" * 2000])
def test_an_answer_that_a_local_model_cannot_read_does_not_affect_the_others(
    make_model: MakeModel, answer: str
) -> None:
    judge = LikelihoodJudge(make_model("llama"))
    bad, good = judge_pairs(judge, [Pair("bad", "Who?", "me", answer), Pair("good", "Who?", "me", "you")], 2, int)
    assert (bad.score, good.score is None) == (None, False)
    assert bad.base_first.reason


def test_length_control_removes_wins_due_to_length_alone() -> None:
    draw = np.random.default_rng(0)
    texts = [(int(draw.integers(1, 60)), int(draw.integers(20, 80))) for _ in range(400)]
    by_length = [
        JudgedPair(
            Pair(str(n), "q", "x" * base, "x" * other),
            *[Verdict(w) for w in (("second", "first") if other > base else ("first", "second"))],
        )
        for n, (base, other) in enumerate(texts)
    ]
    plain, controlled = rate(SetVerdicts(by_length)), length_controlled_rate(SetVerdicts(by_length))
    assert plain is not None
    assert controlled is not None
    assert plain.value > 0.65
    assert abs(controlled - 0.5) < 0.1
    assert length_controlled_rate(SetVerdicts([])) is None
    assert rate(SetVerdicts([])) is None


@pytest.mark.assets
def test_a_real_local_server_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = real_server(2048)
    monkeypatch.setenv("OPENAI_API_KEY", "none is needed")
    settings = JudgeSettings([], "smollm2", f"{server.listening_address}/v1", timeout=120, concurrency=1)
    some = [Pair("a", "What is the capital of France?", "Paris.", "I like trains."), Pair("b", "Say hi.", "hi", "hi")]
    judging = SetVerdicts(judge_pairs(EndpointJudge(settings, tmp_path / "replies.jsonl"), some, 1, lambda: None))
    assert len(judging.judged) == 2
    assert judging.count(unparsed=False) == 0
    assert judging.scores.get("b", 0.5) == 0.5
    replies = [json.loads(line) for line in (tmp_path / "replies.jsonl").read_text().splitlines()]
    assert len(replies) == 3  # identical answers are asked about once
    assert all(reply["tokens_read"] > 100 for reply in replies)
