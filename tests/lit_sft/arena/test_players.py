"""Local models and endpoints as players."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from data_modules.errors import UserError
from data_modules.records.conversation import Message, Role
from lit_sft.arena.answers import Answer
from lit_sft.arena.battles import VoteFile, begin_battle
from lit_sft.arena.page_parts import battle_html, vote_status
from lit_sft.arena.players import EndpointPlayer, LocalPlayer
from lit_sft.endpoint.chat import EndpointError, Request
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.fitted_prompt import turns_of, whole_prompt
from lit_sft.models.generation import GenerationSettings
from lit_sft.models.loaded import LoadedModel
from tests.conftest import MODELS
from tests.lit_sft.arena.scripted import ScriptedPlayer
from tests.waiting import wait_until

SETTINGS = GenerationSettings(max_new_tokens=12, temperature=1.0)
TURNS = [Message(Role.USER, "Hello 你好")]


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    torch.manual_seed(1)
    return LoadedModel("tiny", build_backbone(BackboneSettings(config=MODELS["qwen2"]), tokenizer), tokenizer, "chatml")


def finished(answer: Answer) -> Answer:
    wait_until(lambda: answer.is_finished)
    return answer


def test_a_local_player_answers_as_the_model_does(model: LoadedModel) -> None:
    player = LocalPlayer("tiny", lambda: model)
    answers = [finished(player.begin(TURNS, SETTINGS, seed)).written for seed in (1, 2, 1)]
    prompt = whole_prompt(model.encoder, TURNS).prompt_ids()
    expected = [model.answer([prompt], SETTINGS, seed)[0] for seed in (1, 2)]
    assert [answer.text for answer in answers] == [expected[0].text, expected[1].text, expected[0].text]
    assert answers[0].state == ("cut" if expected[0].is_cut else "done")
    assert player.digest() == model.digest()
    player.close()


def test_a_stopped_answer_frees_the_model(model: LoadedModel) -> None:
    player = LocalPlayer("tiny", lambda: model)
    long = GenerationSettings(max_new_tokens=400, temperature=1.0)
    answer = player.begin(TURNS, long, 0)
    wait_until(lambda: answer.written.text)
    answer.stop()
    text = answer.written
    assert text.state == "stopped"
    assert finished(player.begin(TURNS, SETTINGS, 0)).written.text
    assert answer.written == text, "a stopped answer stays as it was shown"
    player.close()


def test_an_answer_that_the_end_of_the_program_breaks_off_is_not_done(model: LoadedModel) -> None:
    player = LocalPlayer("tiny", lambda: model)
    answer = player.begin(TURNS, GenerationSettings(max_new_tokens=400, temperature=1.0), 0)
    wait_until(lambda: answer.written.text)
    player.close()
    assert finished(answer).written.state == "stopped"


def test_a_conversation_that_does_not_fit_loses_its_oldest_exchange(model: LoadedModel) -> None:
    player = LocalPlayer("tiny", lambda: model)
    turns = turns_of("", [("x" * 300, "y" * 180)], "Hello")
    written = finished(player.begin(turns, SETTINGS, 0)).written
    assert written.note == "the oldest exchange did not fit into the context"
    alone = finished(player.begin([turns[-1]], SETTINGS, 0)).written
    assert written.text == alone.text
    written = finished(player.begin([Message(Role.USER, "x" * 600)], SETTINGS, 0)).written
    assert written.state == "failed"
    assert "expected fewer than 512" in written.note
    player.close()


def test_a_model_that_cannot_be_loaded_is_an_answer_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    def load() -> LoadedModel:
        raise UserError("weights.bin: damaged.")

    player = LocalPlayer("tiny", load)
    assert finished(player.begin(TURNS, SETTINGS, 0)).written.note == "weights.bin: damaged."
    with pytest.raises(UserError, match="damaged"):
        player.prepare().result()
    player.close()


def test_a_bug_is_reported_and_the_page_does_not_wait(model: LoadedModel, capsys: pytest.CaptureFixture[str]) -> None:
    model.backbone.forward = lambda **_: 1 / 0
    player = LocalPlayer("tiny", lambda: model)
    written = finished(player.begin(TURNS, SETTINGS, 0)).written
    assert (written.state, written.note) == ("failed", "ZeroDivisionError: division by zero")
    assert "arena: tiny failed: ZeroDivisionError" in capsys.readouterr().err
    player.close()


class FakeEndpoint:
    """Streams two texts, then ends for a reason or fails."""

    def __init__(self, reason: str | EndpointError) -> None:
        self.reason = reason
        self.requests: list[Request] = []
        self.go = threading.Event()

    def stream(self, request: Request, on_text: Callable[[str], bool]) -> str:
        self.requests.append(request)
        is_wanted = on_text("one")
        self.go.wait()
        is_wanted = on_text("one two") and is_wanted
        if isinstance(self.reason, EndpointError):
            raise self.reason
        return self.reason if is_wanted else ""

    def close(self) -> None:
        self.go.set()


@pytest.mark.parametrize(
    ("reason", "state", "note"),
    [
        ("stop", "done", ""),
        ("length", "cut", ""),
        (EndpointError("Error code: 503", is_answer=False), "failed", "Error code: 503"),
    ],
)
def test_an_endpoint_streams(reason: Any, state: str, note: str) -> None:
    endpoint: Any = FakeEndpoint(reason)
    player = EndpointPlayer("far", endpoint)
    answer = player.begin(turns_of("Be brief.", [("a", "b"), ("c", " ")], "Hello"), SETTINGS, 5)
    wait_until(lambda: answer.written.text)
    assert (answer.written.text, answer.written.state) == ("one", "writing")
    endpoint.go.set()
    written = finished(answer).written
    assert (written.text, written.state, written.note) == ("one two", state, note)
    assert endpoint.requests == [
        Request(
            (("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c\n\nHello")),
            max_tokens=12, temperature=1.0, top_p=1.0, seed=5,
        )
    ]  # fmt: skip
    assert player.digest() == ""


def test_an_answer_that_breaks_off_is_marked_and_not_voted_on(tmp_path: Path) -> None:
    endpoint: Any = FakeEndpoint(EndpointError("the reply ends without a finish_reason", is_answer=True))
    endpoint.go.set()
    battle = begin_battle("Who?", (EndpointPlayer("far", endpoint), ScriptedPlayer("b")), SETTINGS, (0, 0), "")
    written = finished(battle.answers[0]).written
    assert (written.text, written.state) == ("one two", "failed")
    assert not battle.can_be_voted_on
    assert "broken off</div>" in battle_html(battle, 0)
    assert "did not finish" in vote_status(battle, VoteFile(tmp_path / "votes.jsonl"))


def test_a_message_that_is_too_long_is_said_to_be_in_a_blind_comparison(model: LoadedModel, tmp_path: Path) -> None:
    player = LocalPlayer("secret", lambda: model)
    battle = begin_battle("x" * 600, (ScriptedPlayer("b"), player), SETTINGS, (0, 0), "")
    finished(battle.answers[1])
    status = vote_status(battle, VoteFile(tmp_path / "votes.jsonl"))
    assert "The message is too long for one of the models" in status
    assert not re.search("512|secret", status + battle_html(battle, 1)), "its context would tell which model it is"
    player.close()


def test_the_thread_of_a_stopped_reply_ends() -> None:
    endpoint: Any = FakeEndpoint("stop")
    answer = EndpointPlayer("far", endpoint).begin(TURNS, SETTINGS, 0)
    wait_until(lambda: answer.written.text)
    answer.stop()
    endpoint.go.set()
    wait_until(lambda: not any(thread.name == "asks far" for thread in threading.enumerate()))
    assert (answer.written.text, answer.written.state) == ("one", "stopped")
