"""`python -m lit_sft clean FILES --rules RULES`: what cleaning rules change, and the clean documents as a file.

Without --output, nothing is written: read the ledger and its examples before you train with these rules.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from data_modules.cleaning.cleaner import Cleaner
from data_modules.cleaning.rules import RULES, SET_RULES, describe
from data_modules.errors import UserError
from data_modules.records.counts import OnInvalid
from data_modules.records.splits import Sources
from data_modules.records.text_lines import TxtDocuments
from data_modules.wording import counted, kind_of
from lit_sft.cleaning.clean_files import clean_files, report_of
from lit_sft.console import console, print_error_line, print_line
from lit_sft.files import write_json
from lit_sft.output_files import check_file, check_outputs
from lit_sft.reporting.cleaning_table import print_cleaning
from lit_sft.settings.arguments import Arguments
from lit_sft.yaml_loader import load_yaml

_LEFT_OUT = ("boilerplate_lines", "chinese_script")
"""Rules that are not tried by default: one needs patterns, the other a package."""


def main(argv: list[str]) -> None:
    """Clean documents and print the ledger.

    Args:
        argv: `clean` and its arguments.

    Raises:
        UserError: If an argument is wrong or the documents cannot be read.
    """
    if "--list-rules" in argv:
        for name, rule in {**RULES, **SET_RULES}.items():
            print_line(f"{name:20}{describe(rule)}")
        return
    options = _parser().parse_args(argv[1:])
    check_outputs({"--output": options.output, "--json": options.json}, options.files)
    output = _new_file(options.output, overwrite=options.overwrite)
    if options.limit is not None and options.limit < 1:
        raise UserError(f"--limit {options.limit}: expected at least 1 document.")
    if output is not None and not options.rules:
        raise UserError(
            "--output: needs --rules, the rules to clean by; name them, or leave out --output to try rules."
        )
    cleaner = Cleaner.from_settings(rules_of(options.rules), "--rules")
    sources = Sources(
        {"train": options.files},
        columns=_columns(options.columns),
        on_invalid=options.on_invalid,
        txt_documents=options.txt_documents,
    )
    ledger, counts = clean_files(sources, cleaner, output=output, limit=options.limit)
    print_cleaning(console, ledger, ", ".join(options.files))
    if counts.num_invalid:
        print_error_line(f"{counted(counts.num_invalid, 'invalid record')} skipped, first: {counts.invalid[0]}")
    if options.json:
        write_json(Path(options.json), report_of(ledger, cleaner, options.files, counts))
    for path in filter(None, (options.output, options.json)):
        print_error_line(f"written: {path}")


def rules_of(given: list[str] | None) -> list[Any]:
    """The list of rules, from the values of `--rules`.

    Args:
        given: Names of rules, `{name: options}` as YAML, or the name of a YAML file with a list of rules, or with such
            a list under `cleaning`, at the top level or in `data`. None: all rules except those left out by default.

    Raises:
        UserError: If a file does not exist, or has no list of rules.
    """
    if not given:
        return [name for name in (*RULES, *SET_RULES) if name not in _LEFT_OUT]
    return [rule for each in given for rule in (_of_file(each) if _is_file(each) else [load_yaml(each, "--rules")[0]])]


def _is_file(given: str) -> bool:
    return given.endswith((".yaml", ".yml"))


def _of_file(name: str) -> list[Any]:
    path = Path(name)
    if not path.is_file():
        raise UserError(f"--rules {name}: no such file; expected names of rules, or a YAML file with a list of them.")
    found = load_yaml(path.read_text(encoding="utf-8"), name)[0]
    for key in ("data", "cleaning"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    if not isinstance(found, list):
        raise UserError(
            f"{name}: found {kind_of(found, 'a mapping')}; expected a list of rules, or a config with 'cleaning'."
        )
    return found


def _columns(given: str | None) -> dict[str, str]:
    """The column of the text."""
    return {} if given is None else {"text": given}


def _new_file(given: str | None, *, overwrite: bool) -> Path | None:
    if given is None:
        return None
    path = Path(given)
    if path.suffix != ".jsonl":
        raise UserError(f"--output {given}: expected a name that ends in .jsonl, as it is a file of JSON lines.")
    if path.exists() and not overwrite:
        raise UserError(f"--output {given}: exists already; choose another name, or add --overwrite.")
    check_file("--output", given)
    return path


def _parser() -> Arguments:
    parser = Arguments("clean", __doc__, example="articles.jsonl --rules nfc white_space --output clean.jsonl")
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILES",
        help="documents: txt, json, jsonl, csv, tsv or parquet files, folders, hub names",
    )
    parser.add_argument(
        "--rules",
        nargs="+",
        metavar="RULE",
        help="rules in order: names, '{min_length: {characters: 20}}', or a YAML file; default: try all but "
        "boilerplate_lines and chinese_script",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="write the clean documents as JSON lines; default: write nothing"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier --output")
    parser.add_argument("--json", metavar="FILE", help="write the ledger as JSON")
    parser.add_argument("--limit", type=int, metavar="N", help="read the first N documents only")
    parser.add_argument("--columns", metavar="COLUMN", help="the column with the text; default: text")
    parser.add_argument(
        "--txt_documents",
        choices=get_args(TxtDocuments),
        default="line",
        help="what a document is in a .txt file: every line (default), the lines between two blank ones, or the file",
    )
    parser.add_argument(
        "--on_invalid", choices=get_args(OnInvalid), default="error", help="stop at an invalid record, or drop it"
    )
    parser.add_argument("--list-rules", action="store_true", help="list the rules and exit")
    return parser
