"""The part of the arena's page with blind comparisons: two answers, a vote, then the names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from data_modules.errors import UserError
from lit_sft.arena import page_parts
from lit_sft.arena.page_following import (
    EVENT,
    add_random_button,
    answer_box,
    enabled,
    following,
    message_box,
    session_of,
    tried,
)
from lit_sft.arena.visits import Arena, Visit
from lit_sft.files import error_line
from lit_sft.votes import Winner

_LONGEST_NAME = 80


class BlindVote:
    """Two columns without names, the buttons of a vote, and a box for messages below.

    Args:
        arena: What they show.
        prompts: Messages to choose from.

    Attributes:
        components: What `follow` updates.
        follow: The event that updates them.
        voter: The name in the votes.
    """

    def __init__(self, arena: Arena, prompts: Sequence[str]) -> None:
        self.arena = arena
        self._names: list[Any] = []
        self._shown: list[Any] = []
        self._stops: list[Any] = []
        with gr.Row(equal_height=False):
            for side in range(2):
                self._add_side(side)
        self._status = gr.HTML("", elem_classes="vote-status")
        with gr.Row():
            self._votes = {
                winner: gr.Button(label, min_width=120, interactive=False, elem_classes=f"vote-{winner}")
                for winner, label in page_parts.CHOICES.items()
            }
        self._message = message_box(prompts)
        with gr.Row():
            self._send = gr.Button("Send", variant="primary", min_width=100)
            self._repeat = gr.Button("Regenerate both", min_width=100, interactive=False)
            add_random_button(prompts, self._message)
        self._problem = gr.HTML("", elem_classes="problem")
        self.voter = gr.Textbox(
            label="Your name in the votes",
            info="tells voters apart; it need not be your real name",
            elem_classes="voter",
        )
        buttons = [*self._stops, *self._votes.values(), self._send, self._repeat]
        self.components = [*self._names, *self._shown, self._status, *buttons]
        self.follow = following(arena, self._values, _is_finished)
        self._connect()

    def _add_side(self, side: int) -> None:
        with gr.Column(min_width=280, elem_classes="arena-column"):
            self._names.append(gr.HTML(page_parts.side_html(None, side)))
            self._shown.append(answer_box())
            self._stops.append(gr.Button("Stop", size="sm", min_width=60, interactive=False))

    def _connect(self) -> None:
        for trigger in (self._message.submit, self._send.click):
            sent = trigger(self._begin, self._message, [self._message, self._problem], **EVENT)
            sent.then(self.follow, None, self.components, **EVENT)
        for side, stop in enumerate(self._stops):
            stop.click(self._stopping(side), None, None, **EVENT)
        for winner, button in self._votes.items():
            voted = button.click(self._voting(winner), self.voter, self._problem, **EVENT)
            voted.then(self.follow, None, self.components, **EVENT)
        repeated = self._repeat.click(self._begin_again, None, self._problem, **EVENT)
        repeated.then(self.follow, None, self.components, **EVENT)

    def _values(self, visit: Visit) -> list[Any]:
        """What `components` show."""
        battle = visit.battle
        is_busy = battle is not None and not battle.is_finished
        can_vote = battle is not None and battle.can_be_voted_on
        can_repeat = battle is not None and battle.is_finished and battle.winner is None
        stoppable = [not answer.is_finished for answer in battle.answers] if battle else [False, False]
        return [
            *(page_parts.side_html(battle, side) for side in range(2)),
            *(page_parts.battle_html(battle, side) for side in range(2)),
            page_parts.vote_status(battle, self.arena.votes),
            *map(enabled, [*stoppable, *[can_vote] * len(self._votes), not is_busy, can_repeat]),
        ]

    def _begin(self, request: gr.Request, message: str) -> tuple[str, str]:
        visit = self.arena.visit(session_of(request))
        problem = tried(lambda: self.arena.begin_battle(visit, message))
        return message if problem else "", problem

    def _begin_again(self, request: gr.Request) -> str:
        visit = self.arena.visit(session_of(request))
        return tried(lambda: self.arena.repeat_battle(visit))

    def _stopping(self, side: int) -> Callable[..., None]:
        def stop(request: gr.Request) -> None:
            if battle := self.arena.visit(session_of(request)).battle:
                battle.answers[side].stop()

        return stop

    def _voting(self, winner: Winner) -> Callable[..., str]:
        def vote(request: gr.Request, voter: str) -> str:
            battle = self.arena.visit(session_of(request)).battle
            return tried(lambda: self._add(battle, winner, voter))

        return vote

    def _add(self, battle: Any, winner: Winner, voter: str) -> None:
        if not 0 < len(voter.strip()) <= _LONGEST_NAME:
            raise UserError(
                f"your name in the votes: expected 1 to {_LONGEST_NAME} characters; it need not be your real name."
            )
        if battle is None:
            return
        try:
            self.arena.votes.add(battle, winner, voter.strip())
        except OSError as error:
            raise UserError(f"your vote is not saved ({error_line(error)}); click again to retry.") from None


def _is_finished(visit: Visit) -> bool:
    return visit.battle is None or visit.battle.is_finished
