"""`python -m lit_sft preview`: the first examples token by token, and what each loss mask supervises of them.

Reads what `fit` reads and encodes the data as `fit` does, but builds no model and starts no trainer.
"""

from __future__ import annotations

import codecs
import json
import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from itertools import cycle, groupby
from typing import Any

from jsonargparse.typing import PositiveInt
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from data_modules.encoding import Example, bytes_of_tokens
from data_modules.masking import MASKS, LossMask, Weights
from data_modules.sft_data_module import SFTDataModule
from data_modules.templates import SegmentKind
from lit_sft.cli import SettingsCLI, console, names_config, take_run
from lit_sft.preview_page import MARKS_LEGEND, write_page

_SHADES = {
    SegmentKind.SYSTEM: ("#a65fd6", "#c45fb4"),
    SegmentKind.USER: ("#2c7fe0", "#3a97b8"),
    SegmentKind.TEMPLATE: ("#737373", "#8c8c8c"),
    SegmentKind.ANSWER: ("#3f8f3f", "#738a1c"),
    SegmentKind.FINAL_ANSWER: ("#d2541c", "#b87614"),
    SegmentKind.TEXT: ("#168f80", "#5580b0"),
}
"""Two for each kind, taken by turns, so that token borders show; legible on black and on white."""

_MASK_COLUMN = 40
"""Columns of a terminal that a mask needs; where not all fit beside each other, they stand below each other."""


def main(argv: list[str]) -> None:
    """Show the first examples of a split, in the terminal, as a page or as JSON lines.

    Args:
        argv: The command's name and its arguments.

    Raises:
        ValueError: If the split is empty, or the page cannot be written.
    """
    cli = PreviewCLI(_with_config(argv[0], argv[1:]))
    options, data = cli.config, cli.datamodule
    with redirect_stdout(sys.stderr):  # what is asked for is all there is on stdout
        examples = _first_examples(data, options.split, options.num)
    if options.json:
        for example in examples:
            print(json.dumps(to_json(example, data.tokenizer)))
    masks = _masks(options.masks, data.mask)
    shown = [show_example(example, data.tokenizer, masks) for example in examples]
    summary = _summary(data, options.split, len(examples))
    if options.html:
        write_page(options.html, summary, shown)
        Console(stderr=True).print(f"written: {options.html}", markup=False, highlight=False, soft_wrap=True)
    if not (options.json or options.html):
        print_examples(console, summary, shown)


class PreviewCLI(SettingsCLI):
    """What `fit` takes, and what to show. Only the data module is made."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        group = parser.add_argument_group("What preview shows")
        group.add_argument("--split", choices=("train", "val", "test"), default="train", help="Whose examples.")
        group.add_argument("--num", type=PositiveInt, default=3, help="How many, from the first.")
        group.add_argument(
            "--masks",
            nargs="+",
            choices=tuple(MASKS),
            help="Loss masks side by side. Default: the config's own and whole_sequence.",
        )
        group.add_argument("--html", type=str, metavar="FILE", help="Write a page instead.")
        group.add_argument("--json", action="store_true", help="JSON lines instead, with the flags of every mask.")

    def instantiate_classes(self) -> None:
        self.datamodule = SFTDataModule(**self.config.data)

    def _set_seed(self) -> None:
        """Nothing is drawn."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens that are shown as one: mostly one token; several where they write a character together.

    Attributes:
        ids: The tokens.
        index: Where the first of them stands in the example.
        text: What they write, with everything invisible made visible.
    """

    ids: tuple[int, ...]
    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """Consecutive pieces of one kind and turn."""

    kind: SegmentKind
    turn: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class MaskView:
    """What a mask makes of an example.

    Attributes:
        name: The mask's.
        weights: Of each token in the loss, (T,).
    """

    name: str
    weights: Weights

    def supervises(self, piece: Piece) -> bool:
        """Whether a piece weighs anything; its tokens all weigh the same."""
        return bool(self.weights[piece.index] > 0)

    @property
    def caption(self) -> str:
        """How much is supervised."""
        count, total = int((self.weights > 0).sum()), len(self.weights)
        partial = "" if set(self.weights.tolist()) <= {0.0, 1.0} else f", their weights sum to {self.weights.sum():.1f}"
        return f"{count:,} of {total:,} tokens supervised ({count / total:.1%}){partial}"


@dataclass(frozen=True, slots=True)
class ShownExample:
    """An example, ready to be laid out."""

    origin: str
    num_tokens: int
    rows: list[Row]
    views: list[MaskView]


def to_json(example: Example, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """An example as plain JSON values, with the flags of every named mask.

    `tokens` joined is the text: a character of several tokens stands at the last of them.
    """
    tokens = [""] * len(example)
    for group, data in _characters(example, tokenizer):
        tokens[group[-1]] = b"".join(data).decode("utf-8", "replace")
    return {
        "origin": example.origin,
        "input_ids": example.input_ids.tolist(),
        "tokens": tokens,
        "kinds": [SegmentKind(int(kind)).name for kind in example.kinds],
        "turns": example.turns.tolist(),
        "supervised": {
            name: (mask.token_weights(example.kinds, example.turns) > 0).tolist() for name, mask in MASKS.items()
        },
    }


def show_example(example: Example, tokenizer: PreTrainedTokenizerBase, masks: list[LossMask]) -> ShownExample:
    """Cut an example into rows of visible pieces.

    Args:
        example: Any example.
        tokenizer: The one that encoded it.
        masks: To be shown side by side.
    """
    pieces = [piece for group, data in _characters(example, tokenizer) for piece in _pieces(example, group, data)]
    rows = []
    for (kind, turn), row in groupby(pieces, key=lambda p: (example.kinds[p.index], example.turns[p.index])):
        rows.append(Row(SegmentKind(int(kind)), int(turn), _with_visible_edges(tuple(row))))
    views = [MaskView(mask.name, mask.token_weights(example.kinds, example.turns)) for mask in masks]
    return ShownExample(visible(example.origin), len(example), rows, views)


def visible(text: str) -> str:
    """Text with everything invisible made visible, and nothing left in it that steers a terminal.

    A line break is marked and kept. Single spaces inside a text stay as they are; all others become dots. Lone
    surrogates stand for bytes (PEP 383).
    """
    if not text.strip(_JOINERS):
        return "".join(map(_code, text))
    dotted = re.sub(r" {2,}| $| (?=\n)", lambda spaces: "·" * len(spaces[0]), text)
    return "".join(map(_visible_character, dotted))


def print_examples(console: Console, summary: str, shown: list[ShownExample]) -> None:
    """Print examples as tables: one row for each segment, one column for each mask where the terminal is wide enough.

    Without colour, brackets mark what is supervised.
    """
    kinds = sorted({row.kind for example in shown for row in example.rows})
    console.print(Text(summary))
    console.print(_legend(kinds, plain=_is_plain(console)))
    gutter = max(len(kind.name) for kind in kinds)
    for example in shown:
        console.print()
        console.rule(
            Text.assemble((example.origin, "bold"), f"  {example.num_tokens:,} tokens"), align="left", style="dim"
        )
        fits = console.width >= gutter + len(example.views) * (_MASK_COLUMN + 2)
        for views in [example.views] if fits else [[view] for view in example.views]:
            console.print()
            console.print(_table(example.rows, views, gutter, plain=_is_plain(console)))


def _with_config(command: str, arguments: list[str]) -> list[str]:
    """The arguments, with the config of the named run, or the newest, put in where none is given."""
    if names_config(arguments):
        return arguments
    with redirect_stdout(sys.stderr):
        run, _, rest = take_run(command, arguments)
    return ["--config", str(run.config), *rest]


def _first_examples(data: SFTDataModule, split: str, num: int) -> list[Example]:
    data.prepare_data()
    data.setup("preview")
    if split not in data.stores:
        raise ValueError(
            f"--split {split}: the data has no such split; it has {', '.join(data.stores)}. Give `--data.{split} FILE`"
            + ("." if split == "train" else f", or hold some of train out by `--data.{split}_fraction 0.05`.")
        )
    store, ledger = data.stores[split], data.ledgers[split]
    if not len(store):
        raise ValueError(
            f"--split {split}: it is empty ({ledger['records_read']} records read, {ledger['dropped']} too long for "
            f"{data.max_length} tokens); expected an example. Choose another split, or give `--data.{split} FILE`."
        )
    return [store[index] for index in range(min(num, len(store)))]


def _masks(names: list[str] | None, own: LossMask) -> list[LossMask]:
    """Those named, or the config's own and the whole sequence; each once."""
    masks = [MASKS[name] for name in names] if names else [own, MASKS["whole_sequence"]]
    return list(dict.fromkeys(masks))


def _summary(data: SFTDataModule, split: str, num: int) -> str:
    ledger = data.ledgers[split]
    lost = [f"{ledger[key]:,} {key}" for key in ("dropped", "truncated", "split", "duplicates") if ledger[key]]
    parts = [
        f"{split}: {num:,} of {len(data.stores[split]):,} examples",
        f"template {data.encoder.template.name}",
        f"at most {data.max_length:,} tokens",
        *lost,
    ]
    return ", ".join(parts)


def _characters(example: Example, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[range, list[bytes]]]:
    """Tokens in the smallest groups that end between characters, or where their segment ends; the bytes of each."""
    bytes_of = bytes_of_tokens(tokenizer)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    data: list[bytes] = []
    for index, token in enumerate(example.input_ids.tolist()):
        data.append(bytes_of(token))
        decoder.decode(data[-1])
        if not decoder.getstate()[0] or _ends_segment(example, index):
            yield range(index + 1 - len(data), index + 1), data
            data = []
            decoder.reset()


def _ends_segment(example: Example, index: int) -> bool:
    here = slice(index, index + 2)
    return index + 1 == len(example) or len({*zip(example.kinds[here], example.turns[here], strict=True)}) > 1


def _pieces(example: Example, group: range, data: list[bytes]) -> Iterator[Piece]:
    ids = example.input_ids.tolist()
    # the first token of all is never supervised, the next may be: they cannot share a piece
    parts = [group] if group.start else [range(index, index + 1) for index in group]
    for part in parts:
        written = b"".join(data[part.start - group.start : part.stop - group.start])
        text = visible(written.decode("utf-8", "surrogateescape"))
        yield Piece(tuple(ids[part.start : part.stop]), part.start, text or "∅")


def _with_visible_edges(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """A space at the start of a row would not be seen, and a line break at its end would leave an empty line."""
    first = pieces[0]
    pieces = (replace(first, text=re.sub("^ ", "·", first.text)), *pieces[1:])
    last = pieces[-1]
    return (*pieces[:-1], replace(last, text=last.text.removesuffix("\n")))


_MARKS = {chr(code): chr(0x2400 + code) for code in range(32)} | {
    "\n": "↵\n",
    "\t": "⇥",
    "\x7f": "␡",
    "\xa0": "⍽",
}
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"
"""Scripts and emoji are spelt with these. They stay as they are, unless they are all there is of a token."""


def _visible_character(character: str) -> str:
    if character in _MARKS:
        return _MARKS[character]
    if "\udc80" <= character <= "\udcff":
        return f"⟨{ord(character) - 0xDC00:02X}⟩"
    # control and format characters (C1 escapes, text direction), separators
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Zs")
    return _code(character) if hidden and character not in f" \u3000{_JOINERS}" else character


def _code(character: str) -> str:
    return f"⟨U+{ord(character):04X}⟩"


def _is_plain(console: Console) -> bool:
    """Whether neither colour nor underlining will reach the reader."""
    return console.color_system is None


def _legend(kinds: list[SegmentKind], *, plain: bool) -> Text:
    if plain:
        return Text(f"⟦supervised⟧ not supervised\n{MARKS_LEGEND}")
    names = Text(" ").join(Text(kind.name, _SHADES[kind][0]) for kind in kinds)
    supervised = ("supervised", "underline bold")
    return Text.assemble(names, " · ", supervised, f" not supervised · a shade for each token\n{MARKS_LEGEND}")


def _table(rows: list[Row], views: list[MaskView], gutter: int, *, plain: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, expand=True, header_style="none")
    table.add_column("", width=gutter)
    for view in views:
        header = Text.assemble((view.name, "bold"), f"\n{view.caption}", overflow="fold")
        table.add_column(header, ratio=1, overflow="fold")
    for row in rows:
        label = Text(row.kind.name, style=_SHADES[row.kind][0])
        table.add_row(label, *(_row_text(row, view, plain=plain) for view in views))
    return table


def _row_text(row: Row, view: MaskView, *, plain: bool) -> Text:
    text = Text(overflow="fold")
    shades = cycle(_SHADES[row.kind])
    for supervised, pieces in groupby(row.pieces, key=view.supervises):
        text.append("⟦" if supervised and plain else "")
        for piece in pieces:
            text.append(piece.text, f"{next(shades)} {_emphasis(view.weights[piece.index])}")
        text.append("⟧" if supervised and plain else "")
    return text


def _emphasis(weight: float) -> str:
    """Underlined when supervised, bold too when it counts in full."""
    return f"{'underline' if weight > 0 else ''} {'bold' if weight >= 1 else ''}"
