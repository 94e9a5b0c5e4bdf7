"""`python -m lit_sft lint`: what is wrong with records, their encoding, or the labels of any trainer.

Reads the same settings as `fit`, but builds no model and no trainer. Exits with 1 for errors (with `--strict` also for
warnings), and with 2 if it could not run.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from transformers import PreTrainedTokenizerBase

from data_modules.encoding.tokenizers import load_tokenizer
from data_modules.errors import UserError
from data_modules.records.counts import RecordCounts
from data_modules.records.mix import files_of, read_mix
from data_modules.records.splits import read_conversations
from data_modules.rendering.conventions import resolve_convention
from data_modules.sft_data_module import SFTDataModule
from lit_sft.console import console, print_error_line
from lit_sft.files import write_json
from lit_sft.lint.claims import Claim
from lit_sft.lint.data_lint import lint_data
from lit_sft.lint.dump_lint import lint_dump
from lit_sft.lint.findings import Findings, Report
from lit_sft.lint.page import write_page
from lit_sft.lint.rules import chosen_rules
from lit_sft.lint.sarif import to_sarif
from lit_sft.lint.subjects import with_subject
from lit_sft.lint.terminal import print_report, print_rules
from lit_sft.lint.token_text import TokenText
from lit_sft.models.model_config import config_from
from lit_sft.output_files import check_outputs
from lit_sft.runs.model_paths import check_model_paths
from lit_sft.settings.options import training_parser
from lit_sft.settings.parser import SettingsParser
from lit_sft.settings.reading import Settings, parse_settings

_USAGE = """python -m lit_sft lint [DATA ... | RUN | --config FILE ... | --labels FILE] [--tokenizer FOLDER]
                              [--as NAME] [--rules NAMES] [--ignore NAMES] [--strict]
                              [--json FILE] [--sarif FILE] [--html FILE] [--SETTING VALUE ...]"""


def main(argv: list[str]) -> int:
    """Lint records or labels, print what was found, and write the reports asked for.

    Args:
        argv: The command's name and its arguments.

    Returns:
        0 if nothing serious was found, 1 for errors (with `--strict` also for warnings).

    Raises:
        UserError: If it cannot be run.
    """
    if "--list-rules" in argv:
        print_rules(console)
        return 0
    arguments, run = with_subject(argv[0], argv[1:])
    settings = parse_settings(arguments, run_config=run.config if run else None, parser=lint_parser())
    check_model_paths(settings)
    options = settings.config
    check_outputs({f"--{name}": options[name] for name in ("json", "sarif", "html")}, _files_read(settings))
    findings = Findings(chosen_rules(options.rules, options.ignore))
    with redirect_stdout(sys.stderr):  # keep stdout for the findings
        report, tokenizer = _lint_labels(settings, findings) if options.labels else _lint_records(settings, findings)
    print_report(console, report)
    _write_reports(options, report, tokenizer)
    return report.status(strict=options.strict)


def lint_parser() -> SettingsParser:
    """Build the parser of `lint`: its own options first, then those of `fit`."""
    parser = training_parser(prog="python -m lit_sft lint")
    parser.usage = _USAGE
    parser.description = __doc__
    parser.epilog = "All other options are those of `fit`; lint reads data and model settings the same way."
    group = parser.add_argument_group("What to lint, and how to report it")
    groups: Any = parser._action_groups  # --help lists groups in this order
    groups.insert(0, groups.pop(groups.index(group)))
    group.add_argument("--tokenizer", metavar="FOLDER", help="Short for --model.backbone.tokenizer.")
    group.add_argument("--labels", metavar="FILE", help="Lint a dump of input_ids and labels (JSON lines) instead.")
    group.add_argument("--as", metavar="NAME", help="The trainer that made the labels, such as trl:assistant_only.")
    group.add_argument("--rules", metavar="NAMES", help="Rules to run, separated by commas. Default: all.")
    group.add_argument("--ignore", metavar="NAMES", help="Rules to leave out, separated by commas.")
    group.add_argument("--list-rules", action="store_true", help="List the rules.")
    group.add_argument("--strict", action="store_true", help="Exit with 1 for warnings too.")
    group.add_argument("--json", metavar="FILE", help="Write the report as JSON.")
    group.add_argument("--sarif", metavar="FILE", help="Write the report as SARIF, for code hosts and editors.")
    group.add_argument("--html", metavar="FILE", help="Write the report as a page, with the tokens of the examples.")
    return parser


def _lint_records(settings: Settings, findings: Findings) -> tuple[Report, PreTrainedTokenizerBase | None]:
    data, backbone = settings.data_module(), settings.config.model.backbone
    assert isinstance(data, SFTDataModule), "parse_settings refuses text"
    if not data.sources.files:
        raise UserError("no data: name files (`lint rows.jsonl`), or set `--config FILE` or `--data.train FILE`.")
    if backbone.config is not None:
        config_from(backbone.config)  # its context length limits the examples
    has_tokenizer = bool(settings.config.data.tokenizer)
    report = lint_data(data, findings, has_tokenizer=has_tokenizer, is_random=backbone.config is not None)
    return report, data.tokenizer if has_tokenizer else None


def _lint_labels(settings: Settings, findings: Findings) -> tuple[Report, PreTrainedTokenizerBase | None]:
    name = settings.config.data.tokenizer
    tokenizer = load_tokenizer(name) if name else None
    claim = _claim(settings, tokenizer) if settings.config["as"] else None
    report = lint_dump(settings.config.labels, findings, TokenText(tokenizer) if tokenizer else None, claim)
    return report, tokenizer


def _claim(settings: Settings, tokenizer: PreTrainedTokenizerBase | None) -> Claim:
    """What the trainer named with `--as` makes of the records."""
    name, data = settings.config["as"], settings.config.data
    if tokenizer is None or not data.train:
        raise UserError(
            f"--as {name}: needs the tokenizer and the records that the dump was made of: `lint rows.jsonl --labels "
            f"labels.jsonl --as {name} --tokenizer FOLDER`."
        )
    try:
        convention = resolve_convention(name, tokenizer, data.template)
    except UserError as error:
        raise UserError(str(error).replace("--data.convention", "--as")) from None
    sources = replace(settings.data_module().sources, fractions={})
    conversations = read_conversations("train", sources, RecordCounts(sources.on_invalid))
    return Claim(convention, conversations, data.max_length)


def _files_read(settings: Settings) -> list[str]:
    data, labels = settings.data_module(), settings.config.labels
    return [*data.sources.all_files, *([labels] if labels else [])]


def _write_reports(options: Namespace, report: Report, tokenizer: PreTrainedTokenizerBase | None) -> None:
    if options.json:
        write_json(Path(options.json), report.to_json())
    if options.sarif:
        write_json(Path(options.sarif), to_sarif(report, _first_file(options)))
    if options.html:
        write_page(options.html, report, tokenizer)
    for path in filter(None, (options.json, options.sarif, options.html)):
        print_error_line(f"written: {path}")


def _first_file(options: Namespace) -> str:
    """The file that findings about settings belong to."""
    if options.labels:
        return str(options.labels)
    if options.config:
        return str(options.config[0])
    if options.data.mix:
        return files_of(read_mix(options.data.mix))[0]
    train = options.data.train
    return str(train if isinstance(train, str) else train[0])
