"""Settings of any structure, given to any command, are accepted or end in a one-line error, without traceback or hang."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_modules.errors import UserError
from lit_sft.__main__ import main
from tests.conftest import byte_tokenizer, chat_rows

QUICK, MANY = 70, 2000


class Raw(str):
    """Raw YAML text."""


BOMB = "[&a [x, x, x, x, x, x, x, x, x, x], " + ", ".join(
    f"&{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefg", "bcdefgh", strict=True)
) + "]"  # fmt: skip
VALUES = [Raw(text) for text in [
    "[]", "[1, [2]]", "{}", "{a: 1}", "[{}]", "3", "-1", "0", "1e400", "1e300", ".nan", ".inf", "-.inf", "9" * 400,
    "9" * 5000, "true", "false", "null", "~", "", "2020-01-01", "2020-13-45", "12:30:45", "0x1F", "1_000", "yes", "-",
    "!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]", "!!python/name:os.system", "!!float x", "!!int x", "!own x", "! x",
    "&r [*r]", "&r {a: *r}", "*nowhere", BOMB, "{a: 1, a: 2}", "{1: 2}", "{null: 1}", "{true: 1}", "{[1]: 2}",
    "{<<: [1]}", "{<<: {a: 1}}", "[" * 70 + "]" * 70, "[" * 5000, "'", '"', "@x", "`x`", "%x", "- a", "? a", "a: b",
    '"\\x00"', '"\\ud800"', '"\\e[31m"', "'../../..'", "${x}", "'&a [*a]'", "'[1, 2'", "'{a: 1, a: 2}'", "'" + "x" * 300 + "'",
    "{class_path: x}", "{class_path: os.system}", "{class_path: []}", "{class_path: torch.nn.Linear, init_args: {a: x}}",
    "{init_args: {}}", "{class_path: callbacks.RunHealth, init_args: 3}", "'{class_path: 3}'", "[callbacks.RunHealth, 3]",
    "{class_path: callbacks.RunHealth, dict_kwargs: {a: 1}}", "[callbacks]", "[callbacks.]", "[.]", "callbacks.RunHealth",
    "rows.jsonl", "c.yaml", "[[[callbacks.RunHealth]]]",
]]  # fmt: skip
KEYS = [Raw(text) for text in [
    "1", "null", "true", "[1]", "{a: b}", '""', "a.b.c", "trainer.max_steps", "callbacks+", "class_path", "init_args",
    "__path__", "$schema", "config", "help", "'a.'", "'.a'", "'a..b'", "'.'", "fit", "subcommand", "data.train", "'--run'", "x" * 300,
    "2020-01-01", "*k", "&k k", "!!binary k", "<<", "'\\0'",
]]  # fmt: skip
FRAGMENTS = [
    "\t",
    ":",
    "- ",
    "{",
    "}",
    "]",
    ",",
    "!!python/object:os.system ",
    "&a *a ",
    "#",
    "'",
    '"',
    "\n",
    "\n  ",
    "|",
    "\x07",
    "\ufeff",
    "---\n",
    "? ",
]

FIT: dict[str, Any] = {
    "seed_everything": 1,
    "model": {
        "backbone": {
            "config": {"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 1},
            "tokenizer": "TOKENIZER",
            "tuning": "lora",
            "lora": {"rank": 2, "target_modules": ["c_attn"]},
        },
        "optimizer": {"lr": 0.001, "betas": [0.9, 0.99]},
        "generation": {"max_new_tokens": 4},
    },
    "data": {"train": ["rows.jsonl"], "val_fraction": 0.2, "mask": "output_only", "template": "plain"},
    "trainer": {"max_steps": 1, "accelerator": "cpu", "enable_progress_bar": False, "callbacks": ["callbacks.RunHealth"], "logger": False},
    "checkpoint": {"monitor": "val/loss", "save_last": True},
    "run": {"root": "runs", "name": "fuzzed"},
}  # fmt: skip
STUDY: dict[str, Any] = {
    "base": ["c.yaml"],
    "question": "Which?",
    "axes": {"data.mask": ["output_only", "whole_sequence"]},
    "arms": {"one": {"model.optimizer.lr": 0.1}, "two": {}},
    "baseline": "one, mask=output_only",
    "seeds": [0, 1],
    "budget": {"equal": "steps", "amount": 2},
    "settings": {"data.batch_size": 2},
    "validations": 2,
}
SUITE: dict[str, Any] = {
    "question": "What changed?",
    "choices": {"facts": {"data": "rows.jsonl", "rows": 2, "rules": ["sum"]}},
    "texts": {"own": {"data": "rows.jsonl"}},
    "answers": {"told": {"data": "rows.jsonl", "max_new_tokens": 2}},
    "judge": {"model": "x", "endpoint": "http://127.0.0.1:1"},
}


def emit(value: Any) -> str:
    """YAML in flow style, one line for each entry of the outermost mappings."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return "{" + ",\n".join(f"{emit(key)}: {emit(part)}" for key, part in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(emit, value)) + "]"
    return json.dumps(value)


def pairs(value: Any) -> Any:
    """Mappings as lists of pairs, so that keys can be duplicated; empty ones are kept."""
    if isinstance(value, dict):
        return [(key, pairs(part)) for key, part in value.items()] or Raw("{}")
    return [pairs(part) for part in value] if isinstance(value, list) else value


def places(value: Any) -> list[list[Any]]:
    """Every list of pairs and every list of values."""
    inner = [part[1] if isinstance(part, tuple) else part for part in value]
    return [value, *(found for part in inner if isinstance(part, list) and part for found in places(part))]


def damage(draw: random.Random, config: Any) -> None:
    """Change one place of a config."""
    place = draw.choice(places(config))
    index = draw.randrange(len(place))
    is_mapping = isinstance(place[index], tuple)
    key, value = place[index] if is_mapping else (None, place[index])
    kind = draw.randrange(8)
    if kind < 4:
        place[index] = (key, draw.choice(VALUES)) if is_mapping else draw.choice(VALUES)
    elif not is_mapping or kind == 4:
        place[index] = (key, [value]) if is_mapping else [value, draw.choice(VALUES)]
    elif kind == 5:
        place.append((key, draw.choice([value, *VALUES])))
    elif kind == 6:
        place[index] = (draw.choice(KEYS), value)
    else:
        place.append((draw.choice(["no_such_setting", *KEYS]), draw.choice(VALUES)))


def damaged(draw: random.Random, config: dict[str, Any]) -> str:
    """A config with one to three changes of its structure, and, in every fourth, a few characters added or removed."""
    changed = pairs(config)
    for _ in range(draw.choice([1, 1, 2, 3])):
        damage(draw, changed)
    text = emit(changed)
    if draw.randrange(3) == 0:  # block style, if the loader can read it
        with suppress(yaml.YAMLError, ValueError, RecursionError, TypeError):
            text = yaml.safe_dump(yaml.safe_load(text))
    for _ in range(draw.choice([0, 0, 0, 1, 3])):
        place = draw.randrange(len(text) + 1)
        text = text[:place] + draw.choice(["", *FRAGMENTS]) + text[place + draw.choice([0, 0, 1, 5]) :]
    return text


Write = Callable[[str], list[str]]


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[dict[str, Any], Write]]:
    """A complete config for each command, and how to pass a damaged one. Nothing is trained or scored."""
    monkeypatch.chdir(tmp_path)
    byte_tokenizer().save_pretrained("TOKENIZER")
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chat_rows(8)), encoding="utf-8")
    Path("c.yaml").write_text(yaml.safe_dump(FIT))
    for run in ("run", "other"):
        Path(run, "checkpoints").mkdir(parents=True)
        Path(run, "checkpoints", "best.ckpt").touch()
        Path(run, "result.json").write_text('{"metrics": {"test/nll/answer": 1.0}, "files": []}')
        Path(run, "config.yaml").write_text(yaml.safe_dump(FIT))

    def stop(*_: Any, **__: Any) -> Any:
        raise UserError("settings were read")

    monkeypatch.setattr("lit_sft.runs.session.Session.run_trainer", stop)
    monkeypatch.setattr("lit_sft.ablation.command.make_plan", stop)
    monkeypatch.setattr("lit_sft.runs.opening.build_backbone", stop)

    def write(path: str, *arguments: str) -> Write:
        def _write(text: str) -> list[str]:
            Path(path).write_text(text, encoding="utf-8", errors="surrogatepass")
            return list(arguments)

        return _write

    own = {
        name: (FIT, write("c.yaml", "--config", "c.yaml")) for name in ("fit", "validate", "test", "predict", "preview")
    }
    return {
        **own,
        "ablate": (STUDY, write("s.yaml", "--config", "s.yaml")),
        "evaluate": (SUITE, write("s.yaml", "--suite", "s.yaml", "--models", "a=nowhere")),
        "export": (FIT, write("run/config.yaml", "run")),
        "report": (FIT, write("run/config.yaml", "run", "other")),
    }  # fmt: skip


def status_of(argv: list[str]) -> object:
    try:
        return main(argv)
    except SystemExit as end:
        return end.code


def check(commands: dict[str, tuple[dict[str, Any], Write]], index: int) -> None:
    draw = random.Random(index)
    command = draw.choice(["fit"] * 6 + list(commands))
    config, write = commands[command]
    text = damaged(draw, config)
    arguments = write(text)
    if command in ("validate", "test", "predict") and draw.randrange(2):
        Path("run/config.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
        arguments = ["run"]
    said = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(said):
        status = status_of([command, *arguments])
    lines = said.getvalue().strip().splitlines() or [""]
    assert status in ((0, 1, 2) if command == "report" else (0, 2))  # 1: a run was left out, and it says why
    assert status != 2 or lines[-1].startswith(f"lit_sft {command}: "), lines[-1]
    assert len(lines[-1]) < 2000, lines[-1]


@pytest.mark.filterwarnings("ignore")  # libraries may warn about odd but valid settings
def test_settings_of_the_wrong_structure_end_in_one_line(commands: dict[str, tuple[dict[str, Any], Write]]) -> None:
    for index in range(QUICK):
        check(commands, index)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_settings_of_the_wrong_structure_end_in_one_line(
    commands: dict[str, tuple[dict[str, Any], Write]],
) -> None:
    failures = {}
    for index in range(MANY):
        try:
            check(commands, index)
        except (Exception, SystemExit) as error:
            failures[index] = f"{type(error).__name__}: {error}"[:300]
    print(f"\n{MANY} damaged configs, {len(failures)} that did not end in one line")
    for index, failure in failures.items():
        print(index, failure)
    assert not failures
