"""`python -m lit_sft ratings VOTES`: rates models from the votes of people and judges."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from data_modules.wording import counted
from lit_sft.arena.ballots import Voters
from lit_sft.arena.bradley_terry import TieModel
from lit_sft.arena.preference_pairs import write_pairs
from lit_sft.arena.rated_answers import write_labels
from lit_sft.arena.ratings_report import rate_votes
from lit_sft.console import console, print_error_line, print_line
from lit_sft.files import slug
from lit_sft.output_files import check_outputs, check_report_folder
from lit_sft.reporting.page import print_summary
from lit_sft.settings.arguments import Arguments


def main(argv: list[str]) -> None:
    """Rate models, print the ratings, and write the page and the JSON.

    Args:
        argv: The command's name and its arguments.

    Raises:
        UserError: If an argument is wrong, a file cannot be read, a line is not a vote, or there are no votes.
    """
    options = _parser().parse_args(argv[1:])
    paths = [Path(path) for path in options.votes]
    folder = Path(options.output or f"runs/ratings/{slug(paths[0].stem, 'votes')}")
    check_report_folder("--output", folder, own="ratings.json")
    check_outputs({"--pairs": options.pairs, "--labels": options.labels}, options.votes, created=folder)
    rated = rate_votes(paths, folder, voters=options.voters, ties=options.ties)
    print_summary(console, rated.report, rated.page)
    for note in rated.notes:
        print_error_line(note)
    for name, what, target, write in (
        ("pairs", "pair", options.pairs, write_pairs),
        ("labels", "answer", options.labels, write_labels),
    ):
        if target:
            counts = write(paths, Path(target), options.voters)
            why = "; ".join(f"{num:,} left out: {reason}" for reason, num in counts.left_out.items())
            print_line(f"{name:<7} {target}: {counted(counts.num_written, what)}{f' ({why})' if why else ''}")


def _parser() -> Arguments:
    parser = Arguments("ratings", __doc__, example="votes.jsonl")
    parser.add_argument(
        "votes", nargs="+", metavar="VOTES", help="files of votes (JSON lines), such as judge_votes.jsonl of `evaluate`"
    )
    parser.add_argument("--output", metavar="FOLDER", help="where to write; default: runs/ratings/<first file>")
    parser.add_argument("--voters", choices=get_args(Voters), default="all", help="whose votes count; default: all")
    parser.add_argument(
        "--ties",
        choices=get_args(TieModel),
        default="davidson",
        help="davidson estimates how likely ties are; half counts each as half a win, as in Elo; default: davidson",
    )
    parser.add_argument(
        "--pairs", metavar="FILE", help="also write preference pairs (prompt, chosen, rejected) as JSON lines"
    )
    parser.add_argument(
        "--labels", metavar="FILE", help="also write answers rated one by one (prompt, completion, label) as JSON lines"
    )
    return parser
