"""The arena's page, made of Gradio's parts; it remembers what a tab showed before it was reloaded."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import gradio as gr

from lit_sft.arena import page_parts
from lit_sft.arena.page_blind import BlindVote
from lit_sft.arena.page_following import EVENT, session_of
from lit_sft.arena.page_side_by_side import SideBySide
from lit_sft.arena.visits import Arena, Part

_REMEMBERED = "() => [sessionStorage.getItem('arena.tab') || '', localStorage.getItem('arena.voter') || '']"
_REMEMBER = "(tab, voter) => { sessionStorage.setItem('arena.tab', tab); localStorage.setItem('arena.voter', voter); }"
"""The id of a tab survives a reload, and the name of a voter a restart of the browser."""


def make_page(
    arena: Arena, *, title: str, about: str, prompts: Sequence[str] = (), is_blind: bool = False
) -> gr.Blocks:
    """Make the page: a chat with one model, or several side by side and blind comparisons.

    Args:
        arena: What it shows.
        title: Its title.
        about: A line below the title.
        prompts: Messages to choose from.
        is_blind: Whether there are only blind comparisons.
    """
    with gr.Blocks(title=title, analytics_enabled=False, fill_width=True) as page:
        gr.HTML(page_parts.title_html(title, about))
        tab_id = gr.Textbox(visible="hidden")
        parts: list[SideBySide | BlindVote] = []
        with gr.Tabs() if len(arena.players) > 1 and not is_blind else gr.Column() as switch:
            if not is_blind:
                with _part("Side by side", "open", switch):
                    parts.append(SideBySide(arena, prompts))
            if len(arena.players) > 1:
                with _part("Blind vote", "blind", switch):
                    parts.append(BlindVote(arena, prompts))
        _remember(page, arena, tab_id, parts, switch)
    return page


def _part(title: str, name: Part, switch: Any) -> Any:
    """A tab of the switch, or all of a page without one."""
    return gr.Tab(title, id=name) if isinstance(switch, gr.Tabs) else gr.Column()


def _remember(page: Any, arena: Arena, tab_id: Any, parts: Sequence[SideBySide | BlindVote], switch: Any) -> None:
    """Bring back what a reloaded tab had, and stop the answers of a tab that is closed."""
    voter = next((part.voter for part in parts if isinstance(part, BlindVote)), None) or gr.Textbox(visible="hidden")

    def open_tab(request: gr.Request, earlier: str, name: str) -> tuple[str, str, Any]:
        visit = arena.open(session_of(request), earlier)
        shown = gr.Tabs(selected=visit.part) if isinstance(switch, gr.Tabs) else gr.skip()
        return visit.id, name.strip() or f"voter-{secrets.token_hex(4)}", shown

    def close_tab(request: gr.Request) -> None:
        arena.close(session_of(request))

    opened = page.load(open_tab, [tab_id, voter], [tab_id, voter, switch], js=_REMEMBERED, **EVENT)
    opened.then(None, [tab_id, voter], None, js=_REMEMBER)
    voter.blur(None, [tab_id, voter], None, js=_REMEMBER)
    for part in parts:
        opened.then(part.follow, None, part.components, **EVENT)
    page.unload(close_tab)
