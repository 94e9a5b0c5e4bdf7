"""The arena's page in a real browser: `make test-arena`."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_modules.errors import UserError
from lit_sft.arena.ballots import read_ballots
from lit_sft.arena.page_parts import CHOICES
from lit_sft.arena.players import EndpointPlayer
from lit_sft.endpoint.streaming import StreamingEndpoint
from lit_sft.votes import read_votes
from tests.lit_sft.arena.browsing import Tab, a_browser, served
from tests.lit_sft.arena.scripted import ScriptedPlayer
from tests.lit_sft.streaming_server import StreamingServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # of gradio and its libraries
]

EVIL = """<script>window.evil=1</script><img src=x onerror="window.evil=1"> <iframe src="http://evil.example"></iframe>
![image](http://evil.example/i.png) [link](javascript:alert(1)) http://evil.example <style>*{display:none}</style>
{{value}} {{{value}}} {{#each value}}x{{/each}} ${window.evil=1} `${window.evil=2}` @children $$x^2$$
    # indented &lt;b&gt; 你好 🙂"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with a_browser() as opened:
        yield opened


def test_type_stream_stop_regenerate_and_reload(browser: Any, tmp_path: Path) -> None:
    one, other = (ScriptedPlayer(name, f"{name} answers 你好 {{message}}", is_paused=True) for name in ("one", "two"))
    with served(tmp_path, one, other) as address:
        tab = Tab(browser.new_context(), address)
        tab.send("Hello")
        tab.wait_for_answers("one answer", "two answer")
        assert not tab.button("Send").is_enabled()
        tab.button("Stop", 1).click()
        tab.wait_for_text("stopped")
        one.go.set()
        other.go.set()
        tab.wait_for_answers("one answers 你好 Hello", "two answer")
        tab.wait_until_enabled("Regenerate", 1).click()
        tab.wait_for_answers("one answers 你好 Hello", "two answers 你好 Hello")
        tab.wait_until_enabled("Send")
        tab.send("And now?")
        shown = [f"{name} answers 你好 {message}" for name in ("one", "two") for message in ("Hello", "And now?")]
        tab.wait_for_answers(*shown)
        assert [turn.content for turn in other.asked[-1][0]] == ["Hello", "two answers 你好 Hello", "And now?"]
        tab.reload()
        tab.wait_for_answers(*shown)
        tab.button("New conversation").click()
        tab.wait_for_answers()
        assert tab.errors == []


def test_one_model_is_a_chat_with_settings_and_prompts(browser: Any, tmp_path: Path) -> None:
    player = ScriptedPlayer("only", "{message}!")
    with served(tmp_path, player, prompts=["Where do hedgehogs sleep?", "桥下的老乌龟叫什么名字？"]) as address:
        tab = Tab(browser.new_context(), address)
        assert tab.page.get_by_role("tab").count() == 0
        tab.page.locator(".prompts input").click()
        tab.page.get_by_role("option", name="桥下的老乌龟叫什么名字？").click()
        tab.page.wait_for_function("document.querySelector('.message textarea').value.startsWith('桥下')")
        tab.page.get_by_role("button", name="Settings").click()
        tab.page.locator(".system textarea").press_sequentially("Be brief.")
        tab.page.get_by_label("number input for Temperature").fill("0")
        tab.page.get_by_label("number input for Temperature").press("Tab")
        tab.button("Send").click()
        tab.wait_for_answers("桥下的老乌龟叫什么名字？!")
        turns, settings, _ = player.asked[0]
        assert [turn.content for turn in turns] == ["Be brief.", "桥下的老乌龟叫什么名字？"]
        assert (settings.temperature, settings.top_p, settings.max_new_tokens) == (0, 0.95, 64)
        tab.button("Random prompt").click()
        tab.page.wait_for_function("document.querySelector('.message textarea').value.length > 5")
        assert tab.errors == []


def test_a_blind_vote_is_saved_before_the_names_are_shown(browser: Any, tmp_path: Path) -> None:
    players = [ScriptedPlayer(f"secret-{name}", "{message} 😀") for name in "ab"]
    with served(tmp_path, *players, is_blind=True) as address:
        tab = Tab(browser.new_context(), address)
        tab.send("Which?")
        tab.wait_for_answers("Which? 😀", "Which? 😀")
        tab.wait_until_enabled("Right is better")
        assert "secret" not in tab.page.content()
        tab.page.locator(".voter textarea").fill("anna")
        tab.button("Right is better").click()
        tab.wait_for_text("Your vote: Right is better. It is saved")
        (vote,) = read_votes(tmp_path / "votes.jsonl", pytest.fail)
        assert (vote.winner, vote.voter.name, vote.is_blind) == ("right", "anna", True)
        headings = [f"Left: {vote.left.model}", f"Right: {vote.right.model}"]
        assert tab.page.locator(".player").all_inner_texts() == headings
        assert not tab.button("Left is better").is_enabled()
        tab.reload()
        tab.wait_for_text("Your vote: Right is better. It is saved")
        assert tab.page.locator(".player").all_inner_texts() == headings
        assert tab.page.locator(".voter textarea").input_value() == "anna"
        assert not tab.button("Left is better").is_enabled()
        assert len((tmp_path / "votes.jsonl").read_text().splitlines()) == 1
        assert tab.errors == []


def test_an_answer_that_breaks_off_is_marked_and_has_no_vote(browser: Any, tmp_path: Path) -> None:
    server = StreamingServer()
    server.is_broken_off = True
    far = EndpointPlayer("far", StreamingEndpoint(f"http://{server.place}", "m"))
    with served(tmp_path, far, ScriptedPlayer("near")) as address:
        tab = Tab(browser.new_context(), address)
        tab.send("Hello")
        tab.wait_for_text("broken off: the reply ends without a finish_reason")
        tab.show_blind()
        tab.send("Hello")
        tab.wait_for_text("A model did not finish its answer")
        tab.wait_until_enabled("Regenerate both")
        assert not tab.button("Left is better").is_enabled()
    server.close()
    assert not (tmp_path / "votes.jsonl").exists()


def test_two_tabs_do_not_mix(browser: Any, tmp_path: Path) -> None:
    players = [ScriptedPlayer(name, f"{name} answers {{message}}", is_paused=True) for name in ("one", "two")]
    with served(tmp_path, *players) as address:
        context = browser.new_context()
        first, second = Tab(context, address), Tab(context, address)
        first.send("first message")
        second.send("second message")
        for tab in (first, second):
            tab.wait_for_text("one answers")
            tab.wait_until_enabled("Stop", 1)
        second.button("Stop", 0).click()
        second.wait_for_text("stopped")
        for player in players:
            player.go.set()
        first.wait_for_answers("one answers first message", "two answers first message")
        second.wait_for_answers(second.answers()[0], "two answers second message")
        assert "first" not in second.page.content()
        second.show_blind()
        second.send("Which?")
        second.wait_until_enabled("Tie").click()
        second.wait_for_text("Your vote: Tie")
        first.show_blind()
        assert first.answers() == []
        second.reload()
        second.wait_for_text("Your vote: Tie")
        assert "first message" not in second.page.content()
        assert first.errors == second.errors == []


def test_what_a_model_writes_is_shown_and_neither_run_nor_loaded(browser: Any, tmp_path: Path) -> None:
    players = [ScriptedPlayer(f"<b>{name}</b>{{{{value}}}}${{window.evil=3}}", EVIL) for name in "ab"]
    with served(tmp_path, *players, prompts=[EVIL]) as address:
        tab = Tab(browser.new_context(), address)
        for show in (lambda: None, tab.show_blind):
            show()
            tab.send(EVIL)
            tab.wait_for_answers(EVIL, EVIL)
        tab.wait_until_enabled("Both are bad").click()
        tab.wait_for_text("Your vote: Both are bad")
        tab.page.locator(".prompts input >> visible=true").click()
        tab.page.get_by_role("option").first.wait_for()
        assert tab.page.evaluate("window.evil") is None
        inside = tab.page.locator(".exchanges, .player")
        assert inside.locator("script, img, a, iframe, style, b, h1, math").count() == 0
        (vote,) = read_votes(tmp_path / "votes.jsonl", pytest.fail)
        assert vote.left.answer == EVIL
        assert vote.prompt[0].content == EVIL
        assert tab.errors == []
        outside = [request for request in tab.requests if not request.startswith((address, "data:"))]
        assert outside == []
        refused = tab.page.evaluate("fetch('http://evil.example').then(() => 'loaded', () => 'refused')")
        assert refused == "refused"
        assert any("Content Security Policy" in error for error in tab.errors)


def test_sides_are_balanced_over_200_votes(browser: Any, tmp_path: Path) -> None:
    players = [ScriptedPlayer(name) for name in ("one", "two")]
    with served(tmp_path, *players, source=random.Random(7), is_blind=True) as address:
        tab = Tab(browser.new_context(), address)
        for number in range(200):
            tab.send(f"Question {number}")
            tab.page.wait_for_function(
                "text => [...document.querySelectorAll('.asked')].every(e => e.innerText === text)",
                arg=f"Question {number}",
            )
            winner = list(CHOICES.values())[number % 4]
            tab.wait_until_enabled(winner).click()
            tab.wait_for_text(f"has {number + 1} vote")
        assert tab.errors == []
    votes = list(read_votes(tmp_path / "votes.jsonl", pytest.fail))
    left = Counter(vote.left.model for vote in votes)
    print(f"\non the left in 200 votes: {dict(left)}")
    assert len({vote.id for vote in votes}) == len({vote.prompt_key for vote in votes}) == 200
    assert Counter(vote.winner for vote in votes) == dict.fromkeys(CHOICES, 50)
    assert abs(left["one"] - left["two"]) <= 20
    (comparisons,) = read_ballots([tmp_path / "votes.jsonl"]).groups.values()
    assert len(comparisons.outcome) == 200


@pytest.mark.parametrize("width", [1280, 800])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_its_window(browser: Any, tmp_path: Path, width: int, scheme: str) -> None:
    text = "The tortoise 乌龟 " * 60 + "o" * 300
    players = [ScriptedPlayer("tuned on a very long name " * 3, text), ScriptedPlayer("base", "住在桥下。")]
    with served(tmp_path, *players, prompts=["Where do hedgehogs sleep?"]) as address:
        tab = Tab(browser.new_context(color_scheme=scheme), address, (width, 900))
        for name, show in (("side_by_side", lambda: None), ("blind", tab.show_blind)):
            show()
            tab.send("桥下的老乌龟叫什么名字？")
            tab.page.wait_for_function(
                "[...document.querySelectorAll('.answered')].filter(e => e.offsetParent).length == 2"
            )
            picture = tmp_path / f"{name}_{scheme}_{width}.png"
            tab.page.screenshot(path=picture, full_page=True)
            print(f"\n{picture}")
            assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.page.get_by_role("textbox", name="Message").count() == 1
        hint, box = (
            _brightness(tab.box.evaluate(f"element => getComputedStyle(element{part}"))
            for part in (", '::placeholder').color", ").backgroundColor")
        )
        assert abs(hint - box) > 125
        background, colour = (
            tab.page.evaluate(f"getComputedStyle(document.querySelector('{part}')).{style}")
            for part, style in (("body", "backgroundColor"), (".exchanges", "color"))
        )
        assert abs(_brightness(background) - _brightness(colour)) > 125
        assert (_brightness(background) < 128) == (scheme == "dark")


def test_a_port_that_is_taken_is_one_message(tmp_path: Path) -> None:
    with served(tmp_path, ScriptedPlayer("one")) as address:
        port = int(address.rstrip("/").rpartition(":")[2])
        message = f"--port {port}: cannot be used on 127.0.0.1"
        with pytest.raises(UserError, match=message), served(tmp_path, ScriptedPlayer("two"), port=port):
            pass


def _brightness(colour: str) -> float:
    """From 0 (black) to 255, of `rgb(r, g, b)`."""
    red, green, blue = (float(part) for part in colour.partition("(")[2].rstrip(")").split(",")[:3])
    return 0.299 * red + 0.587 * green + 0.114 * blue
