"""`python -m lit_sft synthesize --config FILE`: makes instruction data from articles, questions or seed tasks.

A killed or stopped synthesis continues where it was: run the same command again.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, Namespace  # type: ignore[attr-defined]

from data_modules.errors import UserError
from data_modules.wording import counted, listed
from lit_sft.console import print_error_line, print_line, quieten
from lit_sft.credentials import without_credentials
from lit_sft.endpoint.prices import Prices, shown_amount
from lit_sft.settings.arguments import in_long_form
from lit_sft.settings.nulls import refuse_nulls_of
from lit_sft.settings.parser import SettingsParser
from lit_sft.synthesis.earlier import NothingNewError
from lit_sft.synthesis.report import REPORT
from lit_sft.synthesis.results import FAILED, PAIRS
from lit_sft.synthesis.settings import ModelSettings, SynthesisSettings
from lit_sft.synthesis.synthesize import synthesize
from lit_sft.synthesis.wording import tokens_in_words

_NO_OUTPUT = "the following arguments are required: output"
"""How the parser says so."""


def main(argv: list[str]) -> int:
    """Make instruction data and print what came of it.

    Args:
        argv: `synthesize` and its options.

    Returns:
        0, or 1 if not everything could be asked, or everything failed.

    Raises:
        UserError: If a setting is wrong, or files cannot be read.
        SystemExit: With 130 on Ctrl-C.
    """
    settings = read_synthesis(argv[1:])
    quieten("synthesize")
    try:
        summary = synthesize(settings, log=print_error_line)
    except KeyboardInterrupt:
        print_error_line(
            f"stopped; the replies are kept in {settings.output}. Run the same command again to continue, or add "
            "`--offline true` to write the files from the replies so far."
        )
        raise SystemExit(130) from None
    except NothingNewError as error:
        print_error_line(str(error))
        return 1
    _print_summary(summary, Path(settings.output))
    subjects = summary["subjects"]
    return 1 if subjects["not_reached"] or subjects["failed"] == subjects["read"] else 0


def read_synthesis(arguments: list[str]) -> SynthesisSettings:
    """Read the settings from options, including `--config FILE`.

    Raises:
        UserError: If one is wrong; the message shows no credentials.
    """
    parser = synthesis_parser()
    try:
        config = parser.parse_args(in_long_form(arguments))
        refuse_nulls_of(SynthesisSettings, config)
        return _built(config)
    except UserError as error:
        if str(error) == _NO_OUTPUT:
            raise UserError("--output: not given; expected the folder to write to.") from None
        raise UserError(without_credentials(str(error))) from None


def _built(config: Namespace) -> SynthesisSettings:
    """The settings as objects; errors name the option as the user types it."""
    try:
        prices = Prices(**vars(config.model.prices))
    except UserError as error:
        raise UserError(f"--model.prices.{error}") from None
    model = ModelSettings(**{**vars(config.model), "prices": prices})
    return SynthesisSettings(**{each.name: config[each.name] for each in fields(SynthesisSettings)} | {"model": model})


def synthesis_parser() -> SettingsParser:
    """Build the parser of `synthesize`."""
    prog = "python -m lit_sft synthesize"
    parser = SettingsParser(prog=prog, usage=f"{prog} [--config FILE ...] [--SETTING VALUE ...]", description=__doc__)
    parser.is_of_runs = False
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="YAML file of settings; later files win.")
    parser.add_class_arguments(SynthesisSettings)
    return parser


def _print_summary(summary: dict[str, Any], folder: Path) -> None:
    subjects, pairs, usage = summary["subjects"], summary["pairs"], summary["usage"]
    print_line(
        f"{counted(subjects['read'], summary['subject'])}: "
        f"{subjects['accepted']:,} accepted, {subjects['refused']:,} refused, {subjects['failed']:,} failed, "
        f"{subjects['not_reached']:,} not reached"
    )
    print_line(
        f"{counted(pairs['read'], 'conversation')} made: {pairs['accepted']:,} accepted, {pairs['refused']:,} refused"
    )
    for rule in summary["rules"]:
        if rule["refused"]:
            print_line(f"  {rule['name']}: {rule['refused']:,} of {rule['judged']:,} refused")
    have_all_failed = subjects["failed"] == subjects["read"]  # then the commonest reason is said below
    for number, (fault, count) in enumerate(summary["failures"].items()):
        first = "" if have_all_failed and not number else f", the first: {summary['first_reasons'][fault]}"
        print_line(f"  failed, {fault}: {count:,}{first}")
    print_line(
        f"{counted(usage['replies'], 'reply', 'replies')}, {usage['from_journal']:,} of them from the journal; "
        f"{tokens_in_words(usage)}; {_cost(summary)}"
    )
    if summary["invalid_records"]["count"]:
        first = summary["invalid_records"]["first"][0]
        print_error_line(f"{counted(summary['invalid_records']['count'], 'invalid record')} skipped, first: {first}")
    for file, names in summary["unused_fields"].items():
        print_error_line(f"{file}: fields that are not used: {listed(list(names))}")
    if summary["stopped"]:
        print_error_line(summary["stopped"])
    if have_all_failed:
        fault, reason = next(iter(summary["first_reasons"].items()))
        has = "all reasons and replies" if usage["replies"] else "all reasons"
        print_error_line(
            f"every {summary['subject']} failed, most with {fault}: {reason.rstrip('.')}; {folder / FAILED} has {has}"
        )
    advice = (
        "open it in a browser before you train on the pairs" if pairs["accepted"] else "it shows why there are none"
    )
    print_line(f"pairs   {folder / PAIRS}{'' if pairs['accepted'] else '  (empty)'}")
    print_line(f"page    {folder / REPORT}  ({advice})")


def _cost(summary: dict[str, Any]) -> str:
    usage, each = summary["usage"], summary["cost_per_accepted"]
    if usage["cost"] is None:
        return "cost unknown"
    per_pair = "" if each is None else f", {shown_amount(each)} an accepted pair"
    return f"cost {shown_amount(usage['cost'])} {usage['currency']}{per_pair}"
