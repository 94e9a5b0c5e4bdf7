"""What the parts of the arena's page share: boxes, whose tab an event came from, and following answers while made."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import gradio as gr

from data_modules.errors import UserError
from lit_sft.arena import page_parts
from lit_sft.arena.visits import Arena, Visit
from lit_sft.files import error_line

_TICK_SECONDS = 0.1
"""How often new text is looked for."""

_LONGEST_CHOICE = 100
"""Characters of a prompt in the list of prompts."""

EVENT: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private"}
"""Settings of every event: an answer is its own progress, and tabs do not wait for each other."""

Values = Callable[[Visit], list[Any]]
"""What the components of a part show of a visit."""


def session_of(request: gr.Request) -> str:
    """Identifies the loaded page that an event came from."""
    return str(request.session_hash)


def following(arena: Arena, values: Values, is_finished: Callable[[Visit], bool]) -> Callable[..., Any]:
    """An event that updates components until all answers are finished.

    Args:
        arena: Where the visit is.
        values: What the components show.
        is_finished: Whether nothing more will change.
    """

    async def follow(request: gr.Request) -> AsyncIterator[list[Any]]:
        visit, before = arena.visit(session_of(request)), list[Any]()
        while True:
            is_last = is_finished(visit)  # asked first, so that the end of the text is not missed
            after = values(visit)
            if after != before:
                yield after if not before else _changes(before, after)
                before = after
            if is_last:
                return
            await asyncio.sleep(_TICK_SECONDS)

    return follow


def tried(action: Callable[[], object]) -> str:
    """Do what the user asked for.

    Returns:
        The HTML of a message if that was a mistake or failed; empty otherwise.
    """
    try:
        action()
    except (UserError, OSError) as error:
        return page_parts.status_html(error_line(error), is_error=True)
    return ""


def enabled(is_enabled: bool) -> dict[str, Any]:
    """The update that enables or disables a button."""
    return dict(gr.update(interactive=is_enabled))


def answer_box() -> gr.HTML:
    """A box that answers are shown in, scrolled to their end while they are written."""
    return gr.HTML("", autoscroll=True, min_height=160, max_height=520, container=True, padding=True)


def message_box(prompts: Sequence[str]) -> gr.Textbox:
    """A box for a message; above it, a list of prompts to choose from, if there are any."""
    if prompts:
        choices = [(_shortened(prompt), prompt) for prompt in prompts]
        chosen = gr.Dropdown(choices, value=None, label="Prompts of the suite", elem_classes="prompts")
    box = gr.Textbox(
        label="Message",  # screen readers say it
        show_label=False,
        placeholder="Write a message; Enter sends it, Shift+Enter starts a new line",
        lines=1,
        max_lines=12,
        elem_classes="message",
    )
    if prompts:
        chosen.input(lambda text: text or "", chosen, box, **EVENT)
    return box


def add_random_button(prompts: Sequence[str], box: gr.Textbox) -> None:
    """A button that puts any of the prompts into the box, if there are any."""
    if prompts:
        button = gr.Button("Random prompt", min_width=100)
        button.click(lambda: random.SystemRandom().choice(prompts), None, box, **EVENT)


def _changes(before: list[Any], after: list[Any]) -> list[Any]:
    return [gr.skip() if old == new else new for old, new in zip(before, after, strict=True)]


def _shortened(prompt: str) -> str:
    line = " ".join(prompt.split())
    return line if len(line) <= _LONGEST_CHOICE else f"{line[:_LONGEST_CHOICE]}…"
