"""`python -m lit_sft preview`: shows the first examples token by token, and which tokens each loss mask supervises.

Reads the same settings as `fit` and encodes data the same way, but builds no model and no trainer.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from itertools import cycle, groupby
from typing import Any

from jsonargparse.typing import PositiveInt
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_modules.encoding.example import Example
from data_modules.encoding.ledger import is_limit_too_small, too_small_limit, why_empty
from data_modules.errors import UserError
from data_modules.rendering.masking import MASKS, LossMask
from data_modules.rendering.segments import SegmentKind
from data_modules.sft_data_module import SFTDataModule
from lit_sft.console import console, print_line_on
from lit_sft.models.model_config import config_from
from lit_sft.preview.page import write_page
from lit_sft.preview.token_view import MARKS_LEGEND, MaskView, Row, ShownExample, show_example, to_json
from lit_sft.printable import printable
from lit_sft.runs.data_report import data_remarks, dropped_lines
from lit_sft.runs.folders import Run
from lit_sft.runs.requests import names_config, take_run
from lit_sft.settings.options import training_parser
from lit_sft.settings.parser import SettingsParser
from lit_sft.settings.reading import parse_settings

_SHADES = {
    SegmentKind.SYSTEM: ("#a65fd6", "#c45fb4"),
    SegmentKind.USER: ("#2c7fe0", "#3a97b8"),
    SegmentKind.TEMPLATE: ("#737373", "#8c8c8c"),
    SegmentKind.ANSWER: ("#3f8f3f", "#738a1c"),
    SegmentKind.FINAL_ANSWER: ("#d2541c", "#b87614"),
    SegmentKind.TEXT: ("#168f80", "#5580b0"),
}
"""Two alternating shades per kind, to show token boundaries; legible on black and on white."""

_MASK_COLUMN = 40
"""Terminal columns per mask; if the masks do not fit side by side, they are shown one below the other."""

_USAGE = """python -m lit_sft preview [RUN | --config FILE ...] [--split SPLIT] [--num NUM]
                                 [--masks MASK ...] [--html FILE | --json] [--SETTING VALUE ...]"""


def main(argv: list[str]) -> None:
    """Show the first examples of a split in the terminal, as a page or as JSON lines.

    Args:
        argv: The command's name and its arguments.

    Raises:
        UserError: If the split is empty, or the page cannot be written.
    """
    arguments, run = _with_config(argv[0], argv[1:])
    settings = parse_settings(arguments, run_config=run.config if run else None, parser=preview_parser())
    options, data = settings.config, settings.data_module()
    if options.model.backbone.config is not None:
        config_from(options.model.backbone.config)  # its context length limits the examples
    with redirect_stdout(sys.stderr):  # keep stdout for the examples
        examples = _first_examples(data, options.split, options.num)
        for line in data.ledgers[options.split]["skipped_files"]:
            print(printable(line))
        if options.json:
            for line in dropped_lines(data, options.split):
                print(printable(line))
    if options.json:
        for example in examples:
            print(json.dumps(to_json(example, data.tokenizer)))
    masks = _masks(options.masks, data.mask)
    shown = [show_example(example, data.tokenizer, masks) for example in examples]
    summary = _summary(data, options.split, len(examples))
    if options.html:
        write_page(options.html, summary, shown)
        print_line_on(Console(stderr=True), f"written: {options.html}")
    if not (options.json or options.html):
        print_examples(console, summary, shown)


def preview_parser() -> SettingsParser:
    """Build the parser of `preview`: its own options first, then those of `fit`."""
    parser = training_parser(prog="python -m lit_sft preview")
    parser.usage = _USAGE
    parser.description = "Show the first examples token by token, and which tokens each loss mask supervises."
    parser.epilog = "All other options are those of `fit`; preview reads data and model settings the same way."
    group = parser.add_argument_group("What to show")
    groups: Any = parser._action_groups  # --help lists groups in this order
    groups.insert(0, groups.pop(groups.index(group)))
    group.add_argument("--split", choices=("train", "val", "test"), default="train", help="Split to show.")
    group.add_argument("--num", type=PositiveInt, default=3, help="Number of examples.")
    group.add_argument(
        "--masks",
        nargs="+",
        choices=tuple(MASKS),
        help="Loss masks to show side by side. Default: the config's own and whole_sequence.",
    )
    group.add_argument("--html", type=str, metavar="FILE", help="Write an HTML page instead.")
    group.add_argument(
        "--json", action="store_true", help="Print JSON lines instead, with a flag per token for every mask."
    )
    return parser


def print_examples(console: Console, summary: str, shown: list[ShownExample]) -> None:
    """Print examples as tables: one row per segment, one column per mask if the terminal is wide enough.

    Without colour, brackets mark supervised tokens.
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


def _with_config(command: str, arguments: list[str]) -> tuple[list[str], Run | None]:
    """The arguments, with the config of the named run (or the newest) if there is none; and that run, if used."""
    if names_config(arguments):
        return arguments, None
    with redirect_stdout(sys.stderr):
        run, _, rest = take_run(command, arguments)
    return ["--config", str(run.config), *rest], run


def _first_examples(data: SFTDataModule, split: str, num: int) -> list[Example]:
    data.prepare_data()
    data.setup("preview")
    if split not in data.stores:
        raise UserError(
            f"--split {split}: the data has no such split; it has {', '.join(data.stores)}. Set `--data.{split} FILE`"
            + ("." if split == "train" else f", or hold out part of train with `--data.{split}_fraction 0.05`.")
        )
    store, ledger = data.stores[split], data.ledgers[split]
    if not len(store):
        if is_limit_too_small(ledger):
            raise UserError(f"--split {split}: {too_small_limit(ledger, split, data.max_length)}")
        raise UserError(
            f"--split {split}: this split is empty ({ledger['records_read']:,} records read; "
            f"{why_empty(ledger, data.max_length)}); expected an example. Choose another split, or set "
            f"`--data.{split} FILE`."
        )
    return [store[index] for index in range(min(num, len(store)))]


def _masks(names: list[str] | None, own: LossMask) -> list[LossMask]:
    """The named masks, or the config's own and whole_sequence, without duplicates."""
    masks = [MASKS[name] for name in names] if names else [own, MASKS["whole_sequence"]]
    return list(dict.fromkeys(masks))


def _summary(data: SFTDataModule, split: str, num: int) -> str:
    ledger = data.ledgers[split]
    lost = [f"{ledger[key]:,} {key}" for key in ("dropped", "truncated", "split", "duplicates") if ledger[key]]
    if unknown := ledger["unknown_text"]["count"]:
        lost.append(f"{unknown:,} with text unknown to the tokenizer")
    parts = [
        f"{split}: {num:,} of {len(data.stores[split]):,} examples",
        f"template {data.encoder.template.name}",
        f"at most {data.max_length:,} tokens",
        *lost,
    ]
    remarks = [*dropped_lines(data, split), *data_remarks(data, [split])]
    return "\n".join([", ".join(parts), *map(printable, remarks)])


def _is_plain(console: Console) -> bool:
    """Whether the output has neither colour nor underlining."""
    return console.color_system is None


def _legend(kinds: list[SegmentKind], *, plain: bool) -> Text:
    if plain:
        return Text(f"⟦supervised⟧ not supervised\n{MARKS_LEGEND}")
    names = Text(" ").join(Text(kind.name, _SHADES[kind][0]) for kind in kinds)
    supervised = ("supervised", "underline bold")
    return Text.assemble(names, " · ", supervised, f" not supervised · shades alternate by token\n{MARKS_LEGEND}")


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
    """Underlined if supervised, and bold if its weight is 1."""
    return f"{'underline' if weight > 0 else ''} {'bold' if weight >= 1 else ''}"
