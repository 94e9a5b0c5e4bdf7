"""`python -m lit_sft tokenizer train|compare`: train a tokenizer, or compare several on the same text."""

from __future__ import annotations

import importlib

from data_modules.errors import UserError
from data_modules.wording import did_you_mean

_COMMANDS = {
    "train": ("lit_sft.tokenization.train_command", "train a byte-level BPE tokenizer on any records or text"),
    "compare": ("lit_sft.tokenization.compare_command", "compare tokenizers on the same text, words and characters"),
}

_USAGE = """usage: python -m lit_sft tokenizer {names} [...]

{commands}

python -m lit_sft tokenizer COMMAND --help    its options"""


def main(argv: list[str]) -> None:
    """Run `train` or `compare`.

    Args:
        argv: `tokenizer`, then `train` or `compare`, and its arguments.

    Raises:
        UserError: If there is no such command, or its arguments are wrong.
    """
    if len(argv) > 1 and argv[1] in ("-h", "--help"):
        print(_usage())
        return
    if len(argv) < 2:
        raise UserError(f"no command: expected {' or '.join(_COMMANDS)}, as in `python -m lit_sft tokenizer train`.")
    if argv[1] not in _COMMANDS:
        hint = did_you_mean(argv[1], _COMMANDS) or f"expected {' or '.join(_COMMANDS)}."
        raise UserError(f"{argv[1]}: no such command; {hint}")
    importlib.import_module(_COMMANDS[argv[1]][0]).main(argv[1:])


def _usage() -> str:
    width = max(map(len, _COMMANDS)) + 2
    commands = "\n".join(f"  {name:{width}}{purpose}" for name, (_, purpose) in _COMMANDS.items())
    return _USAGE.format(names="|".join(_COMMANDS), commands=commands)
