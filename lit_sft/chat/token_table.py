"""The tokens of the last prompt and its answer, as the model was given and wrote them."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from lit_sft.chat.session import Exchange
from lit_sft.console import cell
from lit_sft.models.loaded import LoadedModel
from lit_sft.reporting.token_view import MARKS_LEGEND, Row, show_example


def print_tokens(console: Console, exchange: Exchange, model: LoadedModel) -> None:
    """Print every token with its id, part by part.

    Args:
        console: Where to print.
        exchange: A message and its answer.
        model: The model that answered.
    """
    shown = show_example(exchange.tokens, model.tokenizer, [])
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="none")
    for name, ratio in (("part", None), ("tokens", 1), ("ids", 1)):
        table.add_column(name, ratio=ratio, overflow="fold", no_wrap=ratio is None)
    for row in shown.rows:
        ids = " ".join(str(token) for piece in row.pieces for token in piece.ids)
        table.add_row(row.kind.name.lower(), cell(_text(row), console), ids)
    console.print(table)
    num_prompt, num_answer = len(exchange.prompt), exchange.answer.num_tokens
    console.print(
        cell(f"{num_prompt:,} tokens of prompt, {num_answer:,} of answer; | between tokens, {MARKS_LEGEND}", console),
        soft_wrap=True,
    )


def _text(row: Row) -> str:
    # the break after the mark would end the table's line
    return "|".join(piece.text.replace("\n", "") for piece in row.pieces)
