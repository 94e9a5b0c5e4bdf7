"""`lit-sft completion bash|zsh`: prints a script with which the shell completes commands, options and choices.

For bash, add `eval "$(lit-sft completion bash)"` to ~/.bashrc; for zsh, `eval "$(lit-sft completion zsh)"` to ~/.zshrc,
below `compinit`.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lit_sft.help_pages import ESSENTIAL, PAGES, Option
from lit_sft.settings.arguments import Arguments
from lit_sft.shipped import shipped_configs


@dataclass(frozen=True)
class Words:
    """What the shell can complete. It is all in the script, so that nothing is run while somebody types.

    Attributes:
        commands: What each command is for.
        options: The options of each command.
        choices: Words after a command and the word before the cursor, a pattern of the shell; `*` is any.
    """

    commands: dict[str, str]
    options: dict[str, list[str]]
    choices: dict[str, list[str]]


def main(argv: list[str]) -> None:
    """Print the script.

    Args:
        argv: The command's name and its arguments.
    """
    options = _parser().parse_args(argv[1:])
    print({"bash": bash_script, "zsh": zsh_script}[options.shell](completed_words()), end="")


def completed_words() -> Words:
    """Commands, options and choices, from the pages of `--help`."""
    pages = json.loads(PAGES.read_text(encoding="utf-8"))
    sections = [option for section in pages["sections"].values() for option in section]
    options: dict[str, list[Option]] = {}
    for command in pages["about"]:
        own = [each for group in pages["commands"].get(command, {}).get("groups", ()) for each in group["options"]]
        options[command] = own + (sections if command in ESSENTIAL else [])
    names = {command: sorted({flag for each in own for flag in each["flags"]}) for command, own in options.items()}
    short = [config.removeprefix("configs/").removesuffix(".yaml") for config in shipped_configs()]
    subcommands = {"configs *": short, "completion *": ["bash", "zsh"], "tokenizer tokenizer": ["train", "compare"]}
    return Words(pages["about"], names, {**_choices(options), **subcommands})


def bash_script(words: Words) -> str:
    """The script for bash 3.2 and newer."""
    return _BASH.format(
        commands=" ".join(words.commands),
        choices=_cases(words.choices, 'words="{}"'),
        options=_cases({name: options for name, options in words.options.items() if options}, 'words="{}"'),
    )


def zsh_script(words: Words) -> str:
    """The script for zsh."""
    return _ZSH.format(
        commands="\n".join(f"            {shlex.quote(f'{name}:{about}')}" for name, about in words.commands.items()),
        choices=_cases(words.choices, "found=({})"),
        options=_cases({name: options for name, options in words.options.items() if options}, "found=({})"),
    )


def _choices(options: Mapping[str, Sequence[Option]]) -> dict[str, list[str]]:
    """The choices of every option that has some, by `* OPTION`, or by `COMMAND OPTION` where commands differ."""
    found: defaultdict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for command, own in options.items():
        for option in own:
            for flag in option["flags"]:
                found[flag][command] = _choices_of(option["value"])
    patterns: dict[str, list[str]] = {}
    for flag, by_command in found.items():
        is_same = len(set(by_command.values())) == 1
        for command, choices in by_command.items():
            if choices:
                patterns["* " + flag if is_same else f"{command} {flag}"] = list(choices)
    return patterns


def _choices_of(value: str) -> tuple[str, ...]:
    """The choices in `{a,b}` or `[{a,b}]`, or none: other kinds of values may be anything."""
    groups = re.findall(r"\{([^{}]*)\}", value)
    rest = re.sub(r"\{[^{}]*\}|[\[\]|. ]", "", value)
    return tuple(dict.fromkeys(choice for group in groups for choice in group.split(","))) if not rest else ()


def _cases(words: Mapping[str, Sequence[str]], written: str) -> str:
    """Branches of a shell's `case`; patterns with the same words share one."""
    patterns: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for pattern, several in words.items():
        patterns[tuple(several)].append(pattern)
    return "\n".join(
        f"            {'|'.join(map(_pattern, same))}) {written.format(' '.join(several))} ;;"
        for several, same in patterns.items()
    )


def _pattern(pattern: str) -> str:
    """A pattern with only its `*` unquoted."""
    return "".join(part if part == "*" else f'"{part}"' for part in re.split(r"(\*)", pattern) if part)


def _parser() -> Arguments:
    parser = Arguments("completion", __doc__, example="bash")
    parser.add_argument("shell", choices=("bash", "zsh"), help="the shell to write for")
    return parser


_BASH = """# lit-sft in bash, made by `lit-sft completion bash`
_lit_sft() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} words=
    if [[ $current == = ]]; then  # for bash, the sign is a word
        current=
    elif [[ $previous == = ]]; then
        previous=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    if (( COMP_CWORD == 1 )); then
        words="{commands}"
    elif [[ $current == -* ]]; then
        case ${{COMP_WORDS[1]}} in
{options}
        esac
    else
        case "${{COMP_WORDS[1]}} $previous" in
{choices}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o bashdefault -o default -F _lit_sft lit-sft
"""

_ZSH = """#compdef lit-sft
# lit-sft in zsh, made by `lit-sft completion zsh`
_lit_sft() {{
    local command=${{words[2]}} previous=${{words[CURRENT-1]}}
    local -a found
    if (( CURRENT == 2 )); then
        found=(
{commands}
        )
        _describe command found
        return
    fi
    if [[ $PREFIX == --*=* ]]; then
        previous=${{PREFIX%%=*}}
        compset -P '*='
    fi
    if [[ $PREFIX == -* ]]; then
        case $command in
{options}
        esac
    else
        case "$command $previous" in
{choices}
        esac
    fi
    if (( $#found )); then
        compadd -a found
    else
        _files
    fi
}}
compdef _lit_sft lit-sft
"""
