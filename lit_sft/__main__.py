"""`lit-sft COMMAND` and `python -m lit_sft COMMAND`: maps names to functions, which are imported only when used."""

from __future__ import annotations

import errno
import importlib
import os
import platform
import sys

from lit_sft import __version__, own_packages

COMMANDS = {
    "init": ("lit_sft.init.command:main", "write a config for your data, a model and this machine"),
    "configs": ("lit_sft.cli.configs:main", "list the configs that come with lit_sft, or copy some into this folder"),
    "fit": ("lit_sft.cli.commands:main", "fine-tune a model, or train it on text"),
    "find-lr": ("lit_sft.cli.find_lr:main", "suggest a learning rate for a config, after a short test"),
    "validate": ("lit_sft.cli.commands:main", "score a run on its validation split"),
    "test": ("lit_sft.cli.commands:main", "score a run and its answers on the test split; writes result.json"),
    "predict": ("lit_sft.cli.commands:main", "answer prompts; writes JSON lines"),
    "chat": ("lit_sft.chat.command:main", "talk to a model in the terminal, or send it messages over a pipe"),
    "serve": ("lit_sft.serve.command:main", "serve models to programs that speak OpenAI's API"),
    "preview": ("lit_sft.preview.command:main", "show the first examples token by token, under any masks"),
    "tokenizer": ("lit_sft.tokenization.command:main", "train a tokenizer on any text, or compare several"),
    "clean": ("lit_sft.cleaning.command:main", "show what cleaning rules change in documents, or write them clean"),
    "synthesize": ("lit_sft.synthesis.command:main", "make instruction data from articles with a model, and check it"),
    "lint": ("lit_sft.lint.command:main", "find faults in records, their encoding or any trainer's labels"),
    "ablate": ("lit_sft.ablation.command:main", "run all trials of a study, then write its report"),
    "report": ("lit_sft.ablation.study_report:main", "compare the trials of a study, or any runs, on one page"),
    "evaluate": ("lit_sft.evaluation.command:main", "compare any models on a suite, item by item"),
    "arena": ("lit_sft.arena.arena_command:main", "talk to models side by side in a browser, and vote blind"),
    "ratings": ("lit_sft.arena.ratings_command:main", "rate models from the votes of people and judges"),
    "export": (
        "lit_sft.cli.export:main",
        "save a run's model as a Hugging Face folder, optionally with the adapter merged",
    ),
    "merge": ("lit_sft.cli.merge:main", "add up LoRA adapters of the same base model, with weights"),
    "completion": ("lit_sft.cli.completion:main", "print a script that completes commands and options in your shell"),
}

_LONGEST_MESSAGE = 1600
_LONGEST_WORD = 300

own_packages.claim()  # before anything else is imported; processes that encode data import this file too

_USAGE = """usage: python -m lit_sft COMMAND [...]

{commands}

python -m lit_sft init rows.csv                             write config.yaml for your data
python -m lit_sft fit --config config.yaml                  train
python -m lit_sft chat                                      talk to the model of the newest run
python -m lit_sft COMMAND --help                            the options of a command
python -m lit_sft --version                                 the version, and where it is installed

lit-sft is short for python -m lit_sft."""


def main(argv: list[str] | None = None) -> int:
    """Run a command. A user's mistake prints one message instead of a traceback.

    Set LIT_SFT_DEBUG=1 to see the traceback anyway.

    Returns:
        The exit status: the command's own (1 if `lint` finds errors), 2 for a user's mistake, 130 after Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"lit_sft {__version__} ({own_packages.HOME}, Python {platform.python_version()})")
        return 0
    if argv[0] not in COMMANDS:
        from data_modules.wording import did_you_mean

        advice = did_you_mean(argv[0], COMMANDS) or f"expected one of {', '.join(COMMANDS)}."
        print(f"lit_sft: no command {argv[0]!a}; {advice}", file=sys.stderr)
        return 2
    from lit_sft.environment import settle

    settle()
    status = None
    module, function = COMMANDS[argv[0]][0].split(":")
    try:
        from lit_sft.help_pages import help_page

        if (page := help_page(argv)) is not None:
            print(page, end="")
            return 0
        status = getattr(importlib.import_module(module), function)(argv)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has closed the pipe
    except KeyboardInterrupt:
        print(f"\nlit_sft {argv[0]}: interrupted", file=sys.stderr)
        return 130  # the shell's convention
    except Exception as error:
        from data_modules.errors import UserError

        if not isinstance(error, (UserError, OSError)):
            from lit_sft.failures import BUG_NOTE

            error.add_note(BUG_NOTE)
            raise
        if os.environ.get("LIT_SFT_DEBUG"):
            raise
        from lit_sft.printable import printable

        print(printable(f"lit_sft {argv[0]}: {_shortened(_message(error, argv[0]))}", keep_lines=True), file=sys.stderr)
        return 2
    return status or 0


def _message(error: Exception, command: str) -> str:
    """The message of an error, with advice if the disk is full or cannot be written."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    place = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
    is_full = error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO)
    go_on = "continue from the last checkpoint with `fit --resume`" if command == "fit" else "run the command again"
    return f"{place}{error.strerror}{f'; check the disk, then {go_on}.' if is_full else ''}"


def _shortened(message: str) -> str:
    """Cut the middle out of a very long message; the problem and the advice are at its ends."""
    if len(message) <= _LONGEST_MESSAGE:
        return message
    half = _LONGEST_MESSAGE // 2
    head, tail = message[:half], message[-half:]
    # cut between words where possible: half an address or path is useless
    head = head[: head.rfind(" ", half - _LONGEST_WORD)] if " " in head[-_LONGEST_WORD:] else head
    tail = tail[tail.find(" ") + 1 :] if " " in tail[:_LONGEST_WORD] else tail
    return f"{head} [...] {tail}"


def _usage() -> str:
    width = max(map(len, COMMANDS)) + 2
    commands = "\n".join(f"  {name:{width}}{purpose}" for name, (_, purpose) in COMMANDS.items())
    return _USAGE.format(commands=commands)


def run() -> int:
    """Run the command of this process; the script `lit-sft` starts here."""
    from lit_sft.environment import show_notices, use_utf8

    use_utf8()
    show_notices()
    return main()


if __name__ == "__main__":
    sys.exit(run())
