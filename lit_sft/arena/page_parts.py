"""Parts of the arena's page as HTML. What people and models wrote is escaped: it is shown, never interpreted.

Gradio's own `Chatbot` is not used: even with `render_markdown=False`, it renders HTML in messages and loads images.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from data_modules.wording import counted
from lit_sft.arena.answers import Answer, Written
from lit_sft.arena.battles import Battle, VoteFile
from lit_sft.arena.visits import Exchange
from lit_sft.files import error_line
from lit_sft.votes import Winner

SIDES = ("Left", "Right")
"""What the models of a blind comparison are called before the vote."""

CHOICES: dict[Winner, str] = {
    "left": "Left is better",
    "right": "Right is better",
    "tie": "Tie",
    "both_bad": "Both are bad",
}
"""The votes, as their buttons name them."""

CSS = """
.exchanges { display: flex; flex-direction: column; gap: 0.75rem; color: var(--body-text-color); }
.exchanges > div { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.5; }
.exchanges .asked {
  align-self: flex-end; max-width: 90%; padding: 0.5rem 0.75rem; border-radius: 0.75rem;
  background: var(--color-accent-soft);
}
.exchanges .note, .exchanges .nothing { opacity: 0.75; }
.exchanges .note { font-size: 0.85em; }
.exchanges .failed, .status .error { color: var(--error-text-color); opacity: 1; }
.arena-column { gap: 0.5rem !important; }
.player { font-weight: 600; overflow-wrap: anywhere; }
.arena-title h1 { font-size: 1.4rem; font-weight: 700; margin: 0; }
.arena-title p { margin: 0.25rem 0 0; opacity: 0.75; overflow-wrap: anywhere; }
.status { min-height: 1.5em; }
footer { display: none !important; }
"""
"""The style of these parts. Colours are the theme's, so that they follow light and dark mode."""


def exchanges_html(exchanges: Sequence[Exchange], empty: str) -> str:
    """A conversation with one model.

    Args:
        exchanges: What was said.
        empty: Shown if nothing was.
    """
    if not exchanges:
        return _whole(Markup('<div class="nothing">{}</div>').format(empty))
    return _whole(Markup("").join(_asked(each.message) + _answered(each.answer) for each in exchanges))


def battle_html(battle: Battle | None, side: int) -> str:
    """The answer on one side of a blind comparison. Before the vote, nothing in it tells the model.

    Args:
        battle: The comparison; None before the first.
        side: 0 for the left, 1 for the right.
    """
    if battle is None:
        return _whole(Markup('<div class="nothing">{}</div>').format("An answer appears here."))
    return _whole(_asked(battle.prompt) + _answered(battle.answers[side], is_blind=battle.winner is None))


def side_html(battle: Battle | None, side: int) -> str:
    """The heading of a side: the model's name once there is a vote."""
    name = SIDES[side]
    if battle is not None and battle.winner is not None:
        name = f"{name}: {battle.players[side].name}"
    return player_html(name)


def player_html(name: str) -> str:
    """The heading of a column."""
    return str(Markup('<div class="player">{}</div>').format(name))


def title_html(title: str, about: str) -> str:
    """The heading of the page."""
    return str(Markup('<div class="arena-title"><h1>{}</h1><p>{}</p></div>').format(title, about))


def status_html(text: str, *, is_error: bool = False) -> str:
    """A line about what just happened."""
    return str(Markup('<div class="status"><span class="{}">{}</span></div>').format("error" if is_error else "", text))


def vote_status(battle: Battle | None, votes: VoteFile) -> str:
    """What can be done now, or what the vote was."""
    if battle is None:
        return status_html("Send a message: two models answer, and you vote before you see which they are.")
    if battle.winner is not None:
        return _about_vote(battle.winner, votes)
    if not battle.is_finished:
        return status_html("Two models are answering.")
    if any(answer.written.is_refused for answer in battle.answers):
        return status_html(
            "The message is too long for one of the models, or its template cannot write it. Send a shorter one.",
            is_error=True,
        )
    if not battle.can_be_voted_on:
        return status_html(
            "A model did not finish its answer, so there is nothing to vote on. Try again.", is_error=True
        )
    return status_html("Which answer is better?")


def _about_vote(winner: Winner, votes: VoteFile) -> str:
    """What the vote was, and what the file has now: others may have added votes, or removed the file."""
    vote = f"Your vote: {CHOICES[winner]}."
    try:
        num_votes, num_missing = votes.count()
    except OSError as error:
        return status_html(f"{vote} It was saved, but the file cannot be read now: {error_line(error)}", is_error=True)
    if not num_votes:
        gone = f"It was saved, but {votes.path} is gone or empty; the next vote starts a new file."
        return status_html(f"{vote} {gone}", is_error=True)
    saved = f"{vote} It is saved; {votes.path} has {counted(num_votes, 'vote')}."
    if num_missing:
        lost = f"{counted(num_missing, 'vote')} that it had before {'is' if num_missing == 1 else 'are'} gone"
        return status_html(f"{saved} {lost}: the file was removed or changed.", is_error=True)
    return status_html(saved)


def _whole(content: Markup) -> str:
    return str(Markup('<div class="exchanges">{}</div>').format(content))


def _asked(message: str) -> Markup:
    return Markup('<div class="asked" dir="auto">{}</div>').format(message)


def _answered(answer: Answer, *, is_blind: bool = False) -> Markup:
    written = answer.written
    text = Markup('<div class="answered" dir="auto">{}</div>').format(written.text)
    note = _note(answer, written, is_blind=is_blind)
    if not note:
        return text
    kind = "note failed" if written.state == "failed" else "note"
    return text + Markup('<div class="{}">{}</div>').format(kind, note)


def _note(answer: Answer, written: Written, *, is_blind: bool) -> str:
    """What the text does not show. The reason of a failure may name the model, as may what was left out."""
    if written.state in ("waiting", "writing"):
        return "" if written.text else "…"
    if written.state == "cut":
        note = f"cut after {counted(answer.settings.max_new_tokens, 'token')}"
    elif written.state == "done":
        note = "" if written.text.strip() else "an empty answer"
    elif written.state == "stopped":
        note = "stopped"
    else:
        note = "broken off" if written.text else "no answer"
    return ": ".join(filter(None, (note, "" if is_blind else written.note)))
