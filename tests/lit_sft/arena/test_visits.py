"""What each tab of a browser shows."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from data_modules.errors import UserError
from data_modules.records.conversation import Message, Role
from lit_sft.arena import visits
from lit_sft.arena.battles import VoteFile
from lit_sft.arena.page_parts import battle_html, exchanges_html, side_html, vote_status
from lit_sft.arena.visits import Arena, Visit
from lit_sft.models.generation import GenerationSettings
from tests.lit_sft.arena.scripted import ScriptedPlayer
from tests.waiting import wait_until

SETTINGS = GenerationSettings(64, 0.7, 0.95)
EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)> ![i](http://evil.example/i.png) &lt; {{value}} ${1+1}"


def arena_of(folder: Path, *players: ScriptedPlayer, seed: int | None = None) -> Arena:
    return Arena(
        players, SETTINGS, VoteFile(folder / "votes.jsonl"), seed=seed, system="Be brief.", source=random.Random(0)
    )


def texts(visit: Visit) -> list[list[str]]:
    return [[each.answer.written.text for each in column.exchanges] for column in visit.columns]


def test_all_models_get_the_same_message_and_their_own_history(tmp_path: Path) -> None:
    one, other = ScriptedPlayer("one", "1: {message}"), ScriptedPlayer("other", "2: {message}")
    arena = arena_of(tmp_path, one, other, seed=5)
    visit = arena.open("tab")
    arena.ask(visit, "Hello", SETTINGS, " ")
    arena.ask(visit, "And now?", SETTINGS, "Be kind.")
    assert texts(visit) == [["1: Hello", "1: And now?"], ["2: Hello", "2: And now?"]]
    assert other.asked[1][0] == [
        Message(Role.SYSTEM, "Be kind."),
        Message(Role.USER, "Hello"),
        Message(Role.ASSISTANT, "2: Hello"),
        Message(Role.USER, "And now?"),
    ]
    assert other.asked[0][0] == [Message(Role.USER, "Hello")]
    assert [seed for _, _, seed in one.asked] == [5, 5]


def test_a_message_without_an_answer_is_joined_with_the_next_unless_the_model_failed(tmp_path: Path) -> None:
    player = ScriptedPlayer("one")
    arena = arena_of(tmp_path, player)
    visit = arena.open("tab")
    player.error = "out of memory"
    arena.ask(visit, "first", SETTINGS)
    player.error, player.text = "", ""
    arena.ask(visit, "second", SETTINGS)
    arena.ask(visit, "third", SETTINGS)
    assert player.asked[-1][0] == [Message(Role.USER, "second\n\nthird")]


def test_each_answer_is_stopped_on_its_own(tmp_path: Path) -> None:
    slow, slower = ScriptedPlayer("slow", "abcd", is_paused=True), ScriptedPlayer("slower", "efgh", is_paused=True)
    arena = arena_of(tmp_path, slow, slower)
    visit = arena.open("tab")
    arena.ask(visit, "Hello", SETTINGS)
    visit.columns[0].stop()
    assert [column.is_finished for column in visit.columns] == [True, False]
    with pytest.raises(UserError, match="an answer is still being written"):
        arena.ask(visit, "Again", SETTINGS)
    slower.go.set()
    wait_until(lambda: visit.columns[1].is_finished)
    slow.go.set()
    assert texts(visit) == [["ab"], ["efgh"]]


def test_regenerating_replaces_one_answer_with_another_seed(tmp_path: Path) -> None:
    one, other = ScriptedPlayer("one"), ScriptedPlayer("other")
    arena = arena_of(tmp_path, one, other, seed=5)
    visit = arena.open("tab")
    arena.ask_again(visit, 0, SETTINGS)
    assert texts(visit) == [[], []]
    arena.ask(visit, "Hello", SETTINGS)
    arena.ask_again(visit, 0, SETTINGS)
    arena.ask_again(visit, 0, SETTINGS)
    assert texts(visit) == [["Hello says 7"], ["Hello says 5"]]
    assert one.asked[-1][0] == [Message(Role.USER, "Hello")], "what is replaced is not part of the prompt"


def test_tabs_do_not_mix_and_a_reloaded_one_finds_its_conversations(tmp_path: Path) -> None:
    arena = arena_of(tmp_path, ScriptedPlayer("one"), ScriptedPlayer("other"), seed=0)
    first, second = arena.open("1"), arena.open("2")
    arena.ask(first, "Hello", SETTINGS)
    arena.begin_battle(first, "Who?")
    assert first.battle is not None
    assert arena.votes.add(first.battle, "tie", "anna")
    assert texts(second) == [[], []]
    assert second.battle is None
    arena.close("1")
    reloaded = arena.open("3", first.id)
    assert texts(reloaded) == texts(first)
    assert reloaded.battle is not None
    assert (reloaded.battle.winner, reloaded.part) == ("tie", "blind")
    duplicated = arena.open("4", first.id)
    arena.ask(duplicated, "More", SETTINGS)
    assert len(reloaded.columns[0].exchanges) == 1
    assert len({first.id, second.id, reloaded.id, duplicated.id}) == 4
    assert texts(arena.open("5", "an id that nobody has")) == [[], []]


def test_closing_a_tab_stops_its_answers_only(tmp_path: Path) -> None:
    slow = ScriptedPlayer("slow", is_paused=True)
    arena = arena_of(tmp_path, slow, ScriptedPlayer("other"))
    first, second = arena.open("1"), arena.open("2")
    for visit in (first, second):
        arena.ask(visit, "Hello", SETTINGS)
        arena.begin_battle(visit, "Who?")
    arena.close("1")
    assert all(answer.is_finished for answer in first.answers)
    assert not all(answer.is_finished for answer in second.answers)
    assert arena.visit("1") is first, "a tab that lost its connection goes on"
    arena.close("never opened")
    arena.end()
    assert slow.is_closed


def test_a_comparison_is_repeated_with_the_same_models_until_the_vote(tmp_path: Path) -> None:
    arena = arena_of(tmp_path, ScriptedPlayer("one"), ScriptedPlayer("other"), ScriptedPlayer("third"), seed=2)
    visit = arena.open("tab")
    arena.repeat_battle(visit)
    assert visit.battle is None
    arena.begin_battle(visit, "Who?")
    before = visit.battle
    assert before is not None
    arena.repeat_battle(visit)
    assert visit.battle is not None
    assert visit.battle.players == before.players
    assert [answer.seed for answer in visit.battle.answers] == [3, 3]
    assert visit.battle.id != before.id
    arena.votes.add(visit.battle, "left", "anna")
    voted = visit.battle
    arena.repeat_battle(visit)
    assert visit.battle is voted


def test_a_message_that_is_sent_before_the_page_is_loaded_is_not_lost(tmp_path: Path) -> None:
    arena = arena_of(tmp_path, ScriptedPlayer("one"), ScriptedPlayer("other"))
    arena.begin_battle(arena.visit("1"), "Who?")
    battle = arena.visit("1").battle
    assert battle is not None
    assert arena.open("1").battle is battle
    assert arena.visit("1").battle is battle


def test_the_tab_that_was_used_least_recently_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "_MOST_VISITS", 2)
    arena = arena_of(tmp_path, ScriptedPlayer("one"))
    first, second = arena.open("1"), arena.open("2")
    arena.visit("1")
    arena.open("3")
    assert arena.visit("1") is first
    assert arena.visit("2") is not second


@pytest.mark.parametrize("message", ["", " \n"])
def test_an_empty_message_is_refused(tmp_path: Path, message: str) -> None:
    arena = arena_of(tmp_path, ScriptedPlayer("one"), ScriptedPlayer("other"))
    visit = arena.open("tab")
    with pytest.raises(UserError, match="the message is empty"):
        arena.ask(visit, message, SETTINGS)
    with pytest.raises(UserError, match="the message is empty"):
        arena.begin_battle(visit, message)


def test_nothing_on_the_page_names_the_models_before_the_vote(tmp_path: Path) -> None:
    players = [ScriptedPlayer("secret-one", "text"), ScriptedPlayer("secret-two", "text")]
    players[1].error = "secret-two: connection refused"
    arena = arena_of(tmp_path, *players)
    visit = arena.open("tab")
    arena.begin_battle(visit, "Who?")

    def shown() -> str:
        sides = [part(visit.battle, side) for part in (side_html, battle_html) for side in range(2)]
        return " ".join([*sides, vote_status(visit.battle, arena.votes)])

    assert "secret" not in shown()
    assert "nothing to vote on" in shown()
    players[1].error = ""
    arena.begin_battle(visit, "Who?")
    assert "secret" not in shown()
    assert visit.battle is not None
    arena.votes.add(visit.battle, "left", "anna")
    assert {"secret-one", "secret-two"} <= set(re.findall(r"secret-\w+", shown()))


def test_what_a_model_writes_is_escaped(tmp_path: Path) -> None:
    arena = arena_of(tmp_path, ScriptedPlayer("<b>one</b>", EVIL), ScriptedPlayer("other", EVIL))
    visit = arena.open("tab")
    arena.ask(visit, EVIL, SETTINGS)
    arena.begin_battle(visit, EVIL)
    assert visit.battle is not None
    arena.votes.add(visit.battle, "left", "anna")
    shown = [exchanges_html(visit.columns[0].exchanges, ""), battle_html(visit.battle, 0), side_html(visit.battle, 0)]
    for html in shown:
        assert set(re.findall(r"<(\w+)", html)) <= {"div"}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown[0]


def test_the_page_says_how_an_answer_ended(tmp_path: Path) -> None:
    player = ScriptedPlayer("one", is_paused=True)
    arena = arena_of(tmp_path, player)
    notes = {}
    for state in ("cut", "stopped", "failed"):
        visit = arena.open(state)
        arena.ask(visit, "Hello", SETTINGS)
        player.answers[-1].finish(state, "why" if state == "failed" else "")  # type: ignore[arg-type]
        html = exchanges_html(visit.columns[0].exchanges, "")
        notes[state] = re.findall(r'<div class="note[^>]*>([^<]*)', html)
    assert notes == {"cut": ["cut after 64 tokens"], "stopped": ["stopped"], "failed": ["broken off: why"]}
