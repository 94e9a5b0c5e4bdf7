"""`python -m lit_sft preview`: shows the first examples token by token, and which tokens each loss mask supervises.

Reads the same settings as `fit` and encodes data the same way, but builds no model and no trainer.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from typing import Any

from jsonargparse.typing import PositiveInt

from data_modules.encoding.example import Example
from data_modules.encoding.ledger import is_limit_too_small, too_small_limit, why_empty
from data_modules.encoding.split_checks import check_supervision
from data_modules.errors import UserError
from data_modules.rendering.masking import MASKS, LossMask
from data_modules.sft_data_module import SFTDataModule
from lit_sft.console import console, print_error_line
from lit_sft.models.model_config import config_from
from lit_sft.output_files import check_outputs
from lit_sft.preview.page import write_page
from lit_sft.preview.shortening import shortenings
from lit_sft.preview.terminal import print_examples
from lit_sft.printable import printable
from lit_sft.reporting.token_view import show_example, to_json
from lit_sft.runs.data_report import data_remarks, dropped_lines, unread_lines
from lit_sft.runs.model_paths import check_model_paths
from lit_sft.runs.requests import with_run_config
from lit_sft.settings.options import training_parser
from lit_sft.settings.parser import SettingsParser
from lit_sft.settings.reading import parse_settings

_USAGE = """python -m lit_sft preview [RUN | --config FILE ...] [--split SPLIT] [--num NUM]
                                 [--masks MASK ...] [--html FILE | --json] [--SETTING VALUE ...]"""


def main(argv: list[str]) -> None:
    """Show the first examples of a split in the terminal, as a page or as JSON lines.

    Args:
        argv: The command's name and its arguments.

    Raises:
        UserError: If the split is empty, or the page cannot be written.
    """
    arguments, run = with_run_config(argv[0], argv[1:])
    settings = parse_settings(arguments, run_config=run.config if run else None, parser=preview_parser())
    check_model_paths(settings)
    options, data = settings.config, settings.data_module()
    assert isinstance(data, SFTDataModule), "parse_settings refuses text"
    if options.model.backbone.config is not None:
        config_from(options.model.backbone.config)  # its context length limits the examples
    check_outputs({"--html": options.html}, data.sources.all_files)
    with redirect_stdout(sys.stderr):  # keep stdout for the examples
        examples = _first_examples(data, options.split, options.num)
        ledger = data.ledgers[options.split]
        for line in unread_lines(ledger):
            print(printable(line))
        if options.json:
            for line in dropped_lines(data, options.split):
                print(printable(line))
    if options.json:
        for example in examples:
            print(json.dumps(to_json(example, data.tokenizer)))
    shortened = shortenings(data, options.split, examples)
    shown = [
        show_example(example, data.tokenizer, _masks(options.masks, data.mask_of(example)), what)
        for example, what in zip(examples, shortened, strict=True)
    ]
    summary = _summary(data, options.split, len(examples))
    if options.html:
        write_page(options.html, summary, shown)
        print_error_line(f"written: {options.html}")
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


def _warning(data: SFTDataModule) -> list[str]:
    """Why `fit` would refuse the data, if its mask supervises nothing."""
    try:
        check_supervision(data.sources.files["train"], data.stores, data.mask_of)
    except UserError as error:
        return [f"warning {error}"]
    return []


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
    remarks = [*dropped_lines(data, split), *data_remarks(data, [split]), *_warning(data)]
    return "\n".join([", ".join(parts), *map(printable, remarks)])
