"""An endpoint that hangs, dies, replies with nonsense or repeats credentials; replies on disk, and who writes them."""

from __future__ import annotations

import base64
import json
import logging
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from lit_sft.endpoint.chat import EndpointError, Request
from lit_sft.endpoint.client import Endpoint as Client
from lit_sft.evaluation.item_results import Results, SetResult
from lit_sft.evaluation.judge import EndpointJudge
from lit_sft.evaluation.scores import Scored
from lit_sft.evaluation.suite import JudgeSettings
from lit_sft.evaluation.win_rate import AllVerdicts, Pair, judge_models, judge_pairs
from lit_sft.locks import only_one
from tests.lit_sft.evaluation.fake_endpoint import FLOOD, Endpoint, judged, pairs, prefer_longer, settings_of

pytest.importorskip("openai")

KEY = "sk-proj-Q7vXb2LmZ9"

QUESTION = Request((("user", "question"),), max_tokens=8)


def results_of(some: list[Pair]) -> Results:
    results = Results(["base", "tuned"])
    for model, part in (("base", "base"), ("tuned", "other")):
        rows = {p.item: Scored(p.item, {}, details={"question": p.question, "answer": getattr(p, part)}) for p in some}
        results.results[model, "asked"] = SetResult("prompts", rows, [], 1.0)
    return results


def judge_all(settings: JudgeSettings, folder: Path, some: list[Pair]) -> tuple[Results, AllVerdicts, list[str]]:
    results, said = results_of(some), list[str]()
    return results, judge_models(settings, results, folder, said.append), said


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_request_has_one_deadline_however_slowly_its_reply_comes(
    endpoint: Endpoint, tmp_path: Path, fault: str
) -> None:
    endpoint.faults = {"number1.": f"always {fault}"}
    found = judged(endpoint, tmp_path, pairs(2)[1:], timeout=0.5, retries=0)
    assert {verdict.reason for verdict in found.verdicts} == {"Timeout: no complete reply in 0.5 s"}
    endpoint.faults.clear()
    assert sorted(judged(endpoint, tmp_path, pairs(2), timeout=600.0).scores) == ["i0", "i1"]


@pytest.mark.parametrize("fault", ["401", "429", "503", "refused"])
def test_requests_to_a_dead_endpoint_stop_after_a_few_and_continue_on_rerun(
    endpoint: Endpoint, tmp_path: Path, fault: str
) -> None:
    settings = settings_of(endpoint, sets=["asked"], retries=0, concurrency=2)
    judge_all(settings, tmp_path, pairs(3))
    asked = len(endpoint.requests)
    endpoint.faults = {"question": f"always {fault}"}
    if fault == "refused":
        endpoint.server.server_close()
    results, judgings, said = judge_all(settings, tmp_path, pairs(40))
    assert len(endpoint.requests) - asked <= 7  # five, plus those in flight
    assert sorted(judgings["tuned", "asked"].scores) == ["i0", "i1", "i2"]  # cached replies still count
    assert judgings["tuned", "asked"].count(unparsed=False) == 2 * 37
    (line,) = [line for line in said if line.startswith("judge: ")]
    assert "requests stopped: 5 requests in a row to http://127.0.0.1:" in line
    assert "6 replies are kept in" in line
    assert "run the same command again" in line
    assert results.failures["judge"] == line.removeprefix("judge: ")
    if fault != "refused":
        endpoint.faults.clear()
        asked = len(endpoint.requests)
        results, judgings, _ = judge_all(settings, tmp_path, pairs(40))
        assert len(endpoint.requests) - asked == 74
        assert len(judgings["tuned", "asked"].scores) == 40
        assert not results.failures


@pytest.mark.parametrize(
    ("fault", "pauses"), [("500", [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]), ("429", [0.1] * 6), ("400", []), ("401", [])]
)
def test_transient_errors_are_retried_with_growing_pauses(endpoint: Endpoint, fault: str, pauses: list[float]) -> None:
    endpoint.faults, waited = {"": f"always {fault}"}, list[float]()

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    client = Client(endpoint.address, "m", key="k", timeout=10.0, retries=6, concurrency=4, pause=wait)
    with pytest.raises(EndpointError, match=f"Error code: {fault}"):
        client.ask(Request((("user", "<answer_A>\na\n</answer_A><answer_B>\nb\n</answer_B>"),), max_tokens=8))
    client.close()
    assert waited == pauses
    assert len(endpoint.requests) == len(pauses) + 1


@pytest.mark.parametrize("status", ["400", "503", "302", "307", "404"])
def test_only_the_beginning_of_an_error_is_read(endpoint: Endpoint, status: str) -> None:
    endpoint.faults, endpoint.reply = {"": f"always flood {status}"}, lambda prompt: "yes"
    client = Client(endpoint.address, "m", key=KEY, timeout=60.0, retries=0, concurrency=4)
    with pytest.raises(EndpointError, match=rf"^Error code: {status} \([A-Z][a-zA-Z ]+\): (x )+") as raised:
        client.ask(QUESTION)
    client.close()
    assert len(str(raised.value)) < 300
    assert endpoint.flooded < FLOOD


def test_no_request_is_sent_after_close(endpoint: Endpoint) -> None:
    client = Client(endpoint.address, "m", key=KEY, timeout=60.0, retries=0, concurrency=4)
    endpoint.reply = lambda prompt: "yes"
    assert client.ask(QUESTION).text == "yes"
    client.close()
    client.stopped = ""  # as seen by a thread that checked just before
    with pytest.raises(EndpointError, match="not sent: requests were stopped"):
        client.ask(QUESTION)
    assert len(endpoint.requests) == 1


def test_pending_requests_are_cancelled_when_judging_stops(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.faults = {f"number{n}.": "always hang" for n in range(1, 9)}
    judge = EndpointJudge(settings_of(endpoint, timeout=60.0), tmp_path / "replies.jsonl")

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge_pairs(judge, pairs(9), 4, stop, judge.close)
    assert judge.endpoint.stopped
    assert "not sent" in judge("question", "a", "b").reason


def test_errors_of_single_items_do_not_stop_judging(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.faults = {f"number{n}.": "always 400" for n in range(1, 18)}
    found = judged(endpoint, tmp_path, pairs(20), concurrency=1)
    assert sorted(found.scores) == ["i0", "i18", "i19"]
    assert len(endpoint.requests) == 40  # a request that is wrong is not tried again


def test_requests_stop_if_every_reply_is_unusable(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.faults = {"question": "always html"}
    found = judged(endpoint, tmp_path, pairs(40), concurrency=1)
    assert len(endpoint.requests) == 20
    assert "not sent" in found.verdicts[-1].reason


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": None, "completion_tokens": -3}, "much", {}])
def test_reply_without_token_usage_is_accepted(endpoint: Endpoint, tmp_path: Path, usage: Any) -> None:
    endpoint.usage = usage
    for _ in range(2):
        found = judged(endpoint, tmp_path, pairs(3), price_read=2.0, price_written=50.0)
        assert (len(found.scores), found.cost) == (3, 0.0)
    assert len(endpoint.requests) == 6


def test_text_that_utf8_cannot_encode_is_judged_and_kept(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.reply = lambda prompt: '{"winner": "A", "why": "\ud800"}'
    some = [Pair("lone", "question \udfff", "a\ud800", "b"), *pairs(1)]
    for _ in range(2):
        assert sorted(judged(endpoint, tmp_path, some).scores) == ["i0", "lone"]
    assert len(endpoint.requests) == 4
    assert (tmp_path / "replies.jsonl").read_text(encoding="utf-8").count("\ufffd") == 4


def test_a_reply_that_is_nested_too_deeply_does_not_affect_the_others(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.faults = {"number1.": "always deep"}
    found = judged(endpoint, tmp_path, pairs(3))
    assert sorted(found.scores) == ["i0", "i2"]


@pytest.mark.parametrize(
    "damage",
    [
        b'{"key": "cut', b"\xff\xfe\x00", b"[" * 100_000, b"[]", b'"text"', b"null", b'{"key": ["list"], "text": "x"}',
        b'{"key": "other", "text": 3}', b'{"key": "other", "text": "x", "tokens_read": "many", "tokens_written": NaN}',
        b'{"key": "other", "text": "x", "tokens_read": -1e400}', b"9" * 5000,
    ],
    ids=range(11),
)  # fmt: skip
def test_a_damaged_line_of_the_replies_does_not_affect_the_others(
    endpoint: Endpoint, tmp_path: Path, damage: bytes
) -> None:
    judged(endpoint, tmp_path, pairs(2))
    journal = tmp_path / "replies.jsonl"
    lines = journal.read_bytes().splitlines()
    journal.write_bytes(b"\n".join([lines[0], damage, *lines[1:], damage]))  # as a kill leaves it, without an end
    assert len(judged(endpoint, tmp_path, pairs(3)).scores) == 3
    assert len(endpoint.requests) == 6
    assert len(judged(endpoint, tmp_path, pairs(3)).scores) == 3
    assert len(endpoint.requests) == 6  # lines after the damaged one are read


def test_one_process_at_a_time_judges_into_a_folder(endpoint: Endpoint, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from lit_sft.locks import only_one
with only_one(Path(sys.argv[1]), str):
    print("held", flush=True)
    sys.stdin.read()
"""
    settings = settings_of(endpoint, sets=["asked"])
    command = [sys.executable, "-c", code, str(tmp_path / "judge.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=rf"process {other.pid} on .* is judging here; wait .* `--output`"):
            judge_all(settings, tmp_path, pairs(2))
        other.kill()
    assert not endpoint.requests
    _, judgings, _ = judge_all(settings, tmp_path, pairs(2))  # a lock does not outlive its process
    assert len(judgings["tuned", "asked"].scores) == 2
    with only_one(tmp_path / "judge.lock", str):
        pass  # released at the end


def with_user(endpoint: Endpoint, rest: str = "") -> str:
    return endpoint.address.replace("://", "://carol:p%40ss-W0rd77@") + rest


def test_credentials_of_the_endpoint_are_sent_and_written_nowhere(
    endpoint: Endpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    endpoint.reply = lambda prompt: f"{prefer_longer(prompt)} carol p@ss-W0rd77 {KEY} q-77-secret"
    settings = settings_of(endpoint, sets=["asked"], endpoint=with_user(endpoint, "?tenant=q-77-secret"))
    _, judgings, said = judge_all(settings, tmp_path, pairs(3))
    assert len(judgings["tuned", "asked"].scores) == 3
    basic = "Basic " + base64.b64encode(b"carol:p@ss-W0rd77").decode()
    assert set(endpoint.seen) == {("/v1/chat/completions?tenant=q-77-secret", basic)}
    endpoint.faults, endpoint.error = {"question": "always 401"}, f"no: {basic}, {KEY}, q-77-secret, p@ss-W0rd77"
    _, judgings, more = judge_all(settings, tmp_path, pairs(9))
    assert "Error code: 401 (Unauthorized): no: " in judgings["tuned", "asked"].verdicts[-1].reason + " ".join(more)
    captured = capsys.readouterr()
    texts = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    texts += [*said, *more, caplog.text, captured.out, captured.err, repr(settings), str(judgings)]
    for secret in ("carol", "W0rd", "q-77", "sk-proj", "Q7vX", basic[6:14]):
        assert not [text for text in texts if secret in text], secret


@pytest.mark.parametrize(
    "echo",
    [
        lambda key: key, lambda key: key[:11], lambda key: key[5:], lambda key: f"{key[:6]}...{key[-6:]}", " ".join,
        "-".join, "\n".join, quote, lambda key: key.replace("-", "%2D"), lambda key: repr(json.dumps(key)),
        lambda key: base64.b64encode(key.encode()).decode(), lambda key: base64.b64encode(f"u:{key}".encode()).decode(),
        lambda key: base64.b64encode(f":{key}".encode()).decode(), str.upper, lambda key: key.encode().hex(),
        lambda key: "".join(f"&#{ord(c)};" for c in key), lambda key: "".join(f"%{ord(c):02x}" for c in key),
        lambda key: "x" * 195 + key,
    ],
    ids=range(18),
)  # fmt: skip
def test_a_key_that_is_repeated_in_another_spelling_is_masked_too(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, echo: Callable[[str], str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    endpoint.faults, endpoint.error = {"question": "always 401"}, f"wrong key: {echo(KEY)} !"
    reason = judged(endpoint, tmp_path, pairs(1), concurrency=1).judged[0].row()["reason"]
    shown = reason.partition("wrong key: ")[2]
    assert shown
    pieces = {echo(KEY)[at : at + 5] for at in range(len(echo(KEY)) - 4)} - {"xxxxx"}
    assert not [piece for piece in pieces if piece in shown]


def test_a_verdict_is_not_lost_to_a_key_that_is_part_of_it(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "winner")
    for _ in range(2):
        assert len(judged(endpoint, tmp_path, pairs(2)).scores) == 2
    monkeypatch.setenv("OPENAI_API_KEY", "x")  # as local servers are given
    endpoint.faults, endpoint.error = {"question": "always 401"}, "x is no key, example"
    assert "*** is no key, example" in judged(endpoint, tmp_path, pairs(3)).judged[2].row()["reason"]


@pytest.mark.parametrize(("key", "is_judged"), [(f" {KEY}\n", True), (f"{KEY[:9]}\u00e9{KEY[9:]}", False)])
def test_key_invalid_in_a_header_is_reported_without_repeating_it(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, is_judged: bool
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    row = judged(endpoint, tmp_path, pairs(1), retries=0).judged[0].row()
    assert (row["score"] is not None) == is_judged
    assert bool(row["reason"]) != is_judged
    assert KEY[:6] not in row["reason"]


def test_cached_replies_survive_a_new_password(endpoint: Endpoint, tmp_path: Path) -> None:
    judged(endpoint, tmp_path, pairs(2))
    judged(endpoint, tmp_path, pairs(2), endpoint=with_user(endpoint, "?key=another"))
    assert len(endpoint.requests) == 4


@pytest.mark.parametrize("variable", ["sk-abc", "hf_abcdef", "sk abc"])
def test_a_key_given_as_the_name_of_its_variable_is_not_repeated(
    endpoint: Endpoint, tmp_path: Path, variable: str
) -> None:
    with pytest.raises(ValueError, match="judge: the environment variable named by key_variable is empty") as raised:
        EndpointJudge(settings_of(endpoint, key_variable=variable), tmp_path / "replies.jsonl")
    assert variable not in str(raised.value)


@pytest.mark.parametrize("address", ["", "sk-key", "ftp://h", "http://", "http://u:pass@h:no/", "http://u:pass@[h"])
def test_invalid_address_is_refused_without_repeating_it(address: str) -> None:
    with pytest.raises(ValueError, match=r"^endpoint: not an HTTP address; expected one such as"):
        JudgeSettings(sets=[], model="m", endpoint=address)


@pytest.mark.parametrize(
    "setting", [{"timeout": 0.0}, {"timeout": math.nan}, {"retries": -1}, {"price_read": -1.0}, {"max_tokens": 0}]
)
def test_settings_out_of_range_are_named(setting: dict[str, Any]) -> None:
    (name,) = setting
    with pytest.raises(ValueError, match=f"^{name} [^ ]*: expected "):
        JudgeSettings(sets=[], model="m", **setting)
