"""The shell completes commands, options and choices from a script that holds them all; bash runs it here."""

from __future__ import annotations

import json
import subprocess
from itertools import chain
from pathlib import Path

import pytest

from lit_sft.__main__ import COMMANDS, main
from lit_sft.cli.completion import bash_script, completed_words, zsh_script
from lit_sft.help_pages import PAGES
from lit_sft.shipped import shipped_configs

_ASK = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); _lit_sft; printf "%s\\n" "${COMPREPLY[@]}"'


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bash") / "lit-sft.sh"
    path.write_text(bash_script(completed_words()), encoding="utf-8")
    return path


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words after `lit-sft`."""
    command = ["bash", "--norc", "-c", _ASK, str(script), "lit-sft", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("pre",), ["predict", "preview"]),
        (("e",), ["evaluate", "export"]),
        (("fit", "--data.mas"), ["--data.mask"]),
        (("lint", "--data.mas"), ["--data.mask"]),
        (("ablate", "--data.mas"), []),
        (("ablate", "--jo"), ["--jobs"]),
        (("fit", "--data.mask", "w"), ["whole_sequence"]),
        (("fit", "--data.mask", "=", "o"), ["output_only"]),  # bash splits at the sign
        (("fit", "--data.mask", "="), ["whole_sequence", "output_only", "firefly_multi_turn"]),
        (("fit", "--config", "conf"), []),  # the name of a file
        (("evaluate", "--dtype", "a"), ["auto"]),
        (("export", "--dtype", "a"), []),  # not a choice there
        (("configs", "quick"), ["quickstart"]),
        (("completion", ""), ["bash", "zsh"]),
        (("tokenizer", ""), ["train", "compare"]),
        (("tokenizer", "train", ""), []),
    ],
)
def test_bash_completes_commands_options_and_choices(script: Path, words: tuple[str, ...], expected: list[str]) -> None:
    assert completed(script, *words) == expected


def test_every_command_and_option_is_completed() -> None:
    words, pages = completed_words(), json.loads(PAGES.read_text(encoding="utf-8"))
    assert list(words.commands) == list(COMMANDS)
    settings = [option["flags"][-1] for section in pages["sections"].values() for option in section]
    for command in ("fit", "preview"):
        assert {*settings} <= {*words.options[command]}
    for command, page in pages["commands"].items():
        own = {flag for group in page["groups"] for option in group["options"] for flag in option["flags"]}
        assert own <= {*words.options[command]}
    assert len(words.choices["configs *"]) == len(shipped_configs())


def test_words_need_no_quotes_in_a_shell() -> None:
    words = completed_words()
    for word in chain(words.commands, *words.options.values(), *words.choices.values()):
        assert word.replace("-", "").replace("_", "").replace(".", "").replace("/", "").isalnum()


def test_zsh_has_the_same_words_with_what_commands_are_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    script = capsys.readouterr().out
    assert script == zsh_script(completed_words())
    assert "'chat:talk to a model in the terminal, or send it messages over a pipe'" in script
    assert '            *" --data.mask"|*" --masks") found=(whole_sequence output_only firefly_multi_turn) ;;' in script
    assert script.endswith("\ncompdef _lit_sft lit-sft\n")


def test_another_shell_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "fish"]) == 2
    assert "invalid choice: 'fish'" in capsys.readouterr().err
