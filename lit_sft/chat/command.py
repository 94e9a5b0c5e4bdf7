"""`python -m lit_sft chat [RUN|FOLDER|NAME]`: talk to a model, in the terminal or over a pipe.

In a terminal, answers appear as they are made, Ctrl-C stops an answer, and `/help` lists the commands. Over a pipe,
each line is a message and each answer is a line.
"""

from __future__ import annotations

import sys

from data_modules.errors import UserError
from lit_sft.console import print_error_line, quieten
from lit_sft.models.generation import GenerationSettings
from lit_sft.settings.arguments import Arguments
from lit_sft.settings.model_options import add_loading_options, add_sampling_options


def main(argv: list[str]) -> int:
    """Open a model and talk to it.

    Args:
        argv: `chat` and its arguments.

    Returns:
        0, or 1 if a line that came over a pipe was refused.

    Raises:
        UserError: If there is no such model, or a setting is wrong.
    """
    options = _parser().parse_args(argv[1:])
    try:
        settings = GenerationSettings(options.max_new_tokens, options.temperature, options.top_p)
    except UserError as error:
        raise UserError(f"--{error}") from None
    quieten("chat")
    # imported after parsing, so that --help and errors are instant
    from lit_sft.chat.conversing import answer_lines, converse
    from lit_sft.chat.session import ChatSession
    from lit_sft.runs.sources import find_source

    source = find_source(options.model, options.root)
    print_error_line(f"chat: {source.about}")
    source.check()
    model = source.load(source.path, template=options.template, device=options.device)
    print_error_line(f"chat: {model.about()}")
    if source.is_of_text:
        print_error_line("chat: this run was trained on plain text, not on conversations; it may not answer")
    session = ChatSession(model, settings, system=options.system, seed=options.seed)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return 0 if answer_lines(session, sys.stdin.buffer, sys.stdout) else 1
    print_error_line("chat: /help lists the commands; Ctrl-C stops an answer, Ctrl-D leaves")
    converse(session)
    return 0


def _parser() -> Arguments:
    parser = Arguments("chat", __doc__, example="runs/quickstart/version_0 --temperature 0")
    parser.add_argument(
        "model",
        nargs="?",
        help="run folder, checkpoint, model folder, adapter or hub name; default: the newest run",
    )
    add_loading_options(parser)
    add_sampling_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="the same seed and messages give the same answers (0)")
    return parser
