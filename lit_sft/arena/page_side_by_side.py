"""The part of the arena's page with a conversation for every model, all given the same messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

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
from lit_sft.models.generation import GenerationSettings


class SideBySide:
    """Columns, one for each model, with a box for messages below.

    Args:
        arena: What they show.
        prompts: Messages to choose from.

    Attributes:
        components: What `follow` updates.
        follow: The event that updates them.
    """

    def __init__(self, arena: Arena, prompts: Sequence[str]) -> None:
        self.arena = arena
        self._shown: list[Any] = []
        self._stops: list[Any] = []
        self._repeats: list[Any] = []
        with gr.Row(equal_height=False):
            for player in arena.players:
                self._add_column(player.name)
        self._message = message_box(prompts)
        with gr.Row():
            self._send = gr.Button("Send", variant="primary", min_width=100)
            self._reset = gr.Button("New conversation", min_width=100)
            add_random_button(prompts, self._message)
        self._problem = gr.HTML("", elem_classes="problem")
        self._settings = _settings(arena)
        self.components = [*self._shown, *self._stops, *self._repeats, self._send]
        self.follow = following(arena, self._values, _is_finished)
        self._connect()

    def _add_column(self, name: str) -> None:
        with gr.Column(min_width=280, elem_classes="arena-column"):
            gr.HTML(page_parts.player_html(name))
            self._shown.append(answer_box())
            with gr.Row():
                self._stops.append(gr.Button("Stop", size="sm", min_width=60, interactive=False))
                self._repeats.append(gr.Button("Regenerate", size="sm", min_width=60, interactive=False))

    def _connect(self) -> None:
        for trigger in (self._message.submit, self._send.click):
            sent = trigger(self._ask, [self._message, *self._settings], [self._message, self._problem], **EVENT)
            sent.then(self.follow, None, self.components, **EVENT)
        for number, (stop, repeat) in enumerate(zip(self._stops, self._repeats, strict=True)):
            stop.click(self._stopping(number), None, None, **EVENT)
            repeated = repeat.click(self._repeating(number), self._settings, self._problem, **EVENT)
            repeated.then(self.follow, None, self.components, **EVENT)
        emptied = self._reset.click(self._forget, None, self._problem, **EVENT)
        emptied.then(self.follow, None, self.components, **EVENT)

    def _values(self, visit: Visit) -> list[Any]:
        """What `components` show."""
        busy = [not column.is_finished for column in visit.columns]
        repeatable = [bool(column.exchanges) and column.is_finished for column in visit.columns]
        return [
            *(page_parts.exchanges_html(column.exchanges, "Answers appear here.") for column in visit.columns),
            *map(enabled, [*busy, *repeatable, not any(busy)]),
        ]

    def _ask(
        self, request: gr.Request, message: str, system: str, temperature: float, top_p: float, max_new_tokens: float
    ) -> tuple[str, str]:
        visit = self.arena.visit(session_of(request))
        problem = tried(
            lambda: self.arena.ask(visit, message, self._chosen(temperature, top_p, max_new_tokens), system)
        )
        return message if problem else "", problem

    def _repeating(self, number: int) -> Callable[..., str]:
        def repeat(request: gr.Request, system: str, temperature: float, top_p: float, max_new_tokens: float) -> str:
            visit = self.arena.visit(session_of(request))
            return tried(
                lambda: self.arena.ask_again(visit, number, self._chosen(temperature, top_p, max_new_tokens), system)
            )

        return repeat

    def _stopping(self, number: int) -> Callable[..., None]:
        def stop(request: gr.Request) -> None:
            self.arena.visit(session_of(request)).columns[number].stop()

        return stop

    def _forget(self, request: gr.Request) -> str:
        self.arena.reset(self.arena.visit(session_of(request)))
        return ""

    def _chosen(self, temperature: float, top_p: float, max_new_tokens: float) -> GenerationSettings:
        return replace(self.arena.settings, temperature=temperature, top_p=top_p, max_new_tokens=int(max_new_tokens))


def _is_finished(visit: Visit) -> bool:
    return all(column.is_finished for column in visit.columns)


def _settings(arena: Arena) -> list[Any]:
    """The system message and the sampling, for the messages that follow."""
    usual = arena.settings
    with gr.Accordion("Settings", open=False):
        system = gr.Textbox(arena.system, label="System message", lines=1, max_lines=8, elem_classes="system")
        with gr.Row():
            temperature = gr.Slider(
                0, max(2, usual.temperature), usual.temperature, step=0.05, label="Temperature",
                info="0 always takes the likeliest token",
            )  # fmt: skip
            top_p = gr.Slider(
                min(0.05, usual.top_p),
                1,
                usual.top_p,
                step=0.05,
                label="Top p",
                info="sample from the likeliest tokens with this probability",
            )
            longest = gr.Slider(
                1, max(1024, usual.max_new_tokens), usual.max_new_tokens, step=1, label="Longest answer", info="tokens"
            )
    return [system, temperature, top_p, longest]
