"""Builds a study and its runs as `ablate` writes them, and damages their files in every way."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ARMS = ("base", "other")
SEEDS = (0, 1)
MASKS = ("whole_sequence", "output_only")


def write_study(root: Path, tests: str = "test.json") -> Path:
    """A study of two arms and two seeds, and a third arm that failed."""
    study = root / "mine"
    trials = [(arm, seed) for seed in SEEDS for arm in (*ARMS, "fails")]
    about = {
        "question": "Does it matter?", "primary": "output_only", "budget": "equal steps: 4 per trial",
        "checkpoint": "last", "arms": [*ARMS, "fails"],
        "settings": {arm: {"data.mask": arm, "model.optimizer.lr": 0.1} for arm in (*ARMS, "fails")},
        "trials": [{"arm": arm, "seed": seed, "folder": f"{arm}-seed{seed}"} for arm, seed in trials],
    }  # fmt: skip
    write_text(study / "study.json", json.dumps(about))
    for arm, seed in trials:
        folder = study / "trials" / f"{arm}-seed{seed}"
        write_text(folder / "definition.json", json.dumps({"arm": arm, "seed": seed, "settings": {}, "steps": 4}))
        if arm == "fails":
            write_text(folder / "failure.json", json.dumps({"reason": "out of memory", "by": "run"}))
        else:
            write_run(folder / "version_0", arm, seed, tests)
    return study


def write_run(run: Path, arm: str, seed: int, tests: str = "test.json") -> Path:
    """A tested run, whose metrics are determined by its arm and seed."""
    draw = random.Random(f"{arm} {seed}")
    result = {
        "metrics": {"test/nll/answer": 1.5}, "answers": {"rows": 4, "exact_match": 0.5}, "mask": "output_only",
        "reduction": "token", "checkpoint": "best.ckpt", "config_hash": "c", "data_fingerprint": "d",
        "test_fingerprint": "t", "files": ["test_records.jsonl", "test_answers.jsonl"],
        "ledger": {"train": {"records_read": 8, "invalid": {"count": 0, "first": []}, "examples": 8}},
        "versions": {"torch": "2"},
    }  # fmt: skip
    record = {
        "step": 4, "of": 4, "train_loss": 1.0, "initial_weights": f"w{seed}", "initial_adapters": "", "examples": 8,
        "tokens": 80, "supervised_tokens": 40, "seconds": 1.0, "peak_bytes": 10**8, "order": ["a", "b"],
    }  # fmt: skip
    config = {
        "seed_everything": seed, "data": {"train": "train.json", "seed": seed, "mask": arm},
        "model": {"backbone": {"config": {"n_layer": 1}}, "optimizer": {"lr": 0.1}}, "trainer": {"max_steps": 4},
        "run": {"root": "runs"},
    }  # fmt: skip
    origins = [f"{tests}:{line}" for line in range(1, 5)]
    records = [
        {"origin": o, "nats": {m: draw.uniform(1, 9) for m in MASKS}, "tokens": dict.fromkeys(MASKS, 3)}
        for o in origins
    ]
    answers = [
        {
            "origin": o,
            "answer": "a",
            "reference": "b",
            "exact_match": draw.random() < 0.5,
            "rougeL_mixed": draw.random(),
        }
        for o in origins
    ]
    curve = [
        {"step": step, "epoch": 0, "masks": {m: {"nll": draw.uniform(1, 9), "tokens": 3} for m in MASKS}}
        for step in (0, 2, 4)
    ]
    samples = [{"step": 4, "origin": "p", "prompt": "Hi", "temperature": 0.0, "answer": "Hello", "ended": True}]
    write_text(run / "config.yaml", yaml.safe_dump(config))
    write_text(run / "result.json", json.dumps(result))
    write_text(run / "trial.json", json.dumps(record))
    write_text(run / "ledger.json", json.dumps(result["ledger"]))
    write_text(run / "fit.json", json.dumps({"before": {"loss": 3.0}, "best": {}, "last": {}, "steps": 4}))
    for name, rows in (
        ("test_records", records), ("test_answers", answers), ("loss_modes", curve), ("samples", samples),
        ("benchmarks", [{"step": 4, "set": "s", "figure": "acc", "value": 0.5}]),
    ):  # fmt: skip
        write_text(run / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write_text(run / "events.out.tfevents.0", "events")
    write_text(run / "checkpoints" / "last.ckpt", "weights")
    return run


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


FILES = (
    "study.json", "trials/fails-seed0/failure.json", "trials/other-seed1/definition.json",
    *(
        f"trials/other-seed1/version_0/{name}"
        for name in (
            "config.yaml", "result.json", "trial.json", "ledger.json", "fit.json", "test_records.jsonl",
            "test_answers.jsonl", "loss_modes.jsonl", "samples.jsonl", "benchmarks.jsonl", "events.out.tfevents.0",
            "checkpoints/last.ckpt",
        )
    ),
)  # fmt: skip

ODD: list[Any] = [
    None, True, False, 0, -1, 1.5, 10**400, 1e308, float("nan"), float("inf"), "", "text", "\ud800", "../../x",
    "\x1b[2J", "x" * 5000, [], [1], ["a", None], {}, {"a": 1}, {"count": []}, [[]], {"nll": "x"}, "2024-99-99",
]  # fmt: skip


def _write(content: bytes) -> Callable[[Path, random.Random], None]:
    return lambda path, _: void(path.write_bytes(content))


def void(_: object) -> None:
    """Nothing."""


def _folder(path: Path, _: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _link(target: str) -> Callable[[Path, random.Random], None]:
    def _damage(path: Path, _: random.Random) -> None:
        path.unlink()
        path.symlink_to(path.name if target == "itself" else target)

    return _damage


def _cut(path: Path, draw: random.Random) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: draw.randrange(len(raw))])


def _overwritten(path: Path, draw: random.Random) -> None:
    raw = bytearray(path.read_bytes())
    for _ in range(3):
        raw[draw.randrange(len(raw))] = draw.randrange(256)
    path.write_bytes(raw)


def _other_values(path: Path, draw: random.Random) -> None:
    """A readable file with one or two values replaced."""
    text = path.read_text(encoding="utf-8")
    is_yaml, is_lines = path.suffix == ".yaml", path.suffix == ".jsonl"
    if path.suffix not in (".json", ".yaml", ".jsonl"):
        return _overwritten(path, draw)
    read = yaml.safe_load if is_yaml else json.loads
    parts = [read(part) for part in (text.splitlines() if is_lines else [text])]
    for _ in range(draw.randint(1, 2)):
        at = draw.randrange(len(parts))
        parts[at] = _changed(parts[at], draw)
    write = yaml.safe_dump if is_yaml else json.dumps
    lines = [str(write(part)) for part in parts]
    path.write_text("\n".join(lines) + ("\n" if is_lines else ""), encoding="utf-8", errors="backslashreplace")
    return None


def _changed(value: Any, draw: random.Random) -> Any:
    """A value with something odd in it, at any depth."""
    if draw.random() < 0.2 or not isinstance(value, (dict, list)) or not value:
        return draw.choice(ODD)
    copy = value.copy()
    key = draw.choice(list(copy)) if isinstance(copy, dict) else draw.randrange(len(copy))
    if draw.random() < 0.2:
        del copy[key]
    else:
        copy[key] = _changed(copy[key], draw)
    return copy


WHOLE: dict[str, Callable[[Path, random.Random], None]] = {
    "missing": lambda path, _: path.unlink(),
    "empty": _write(b""),
    "cut": _cut,
    "binary": _write(bytes(range(256))),
    "utf-16": lambda path, _: void(path.write_bytes(path.read_bytes().decode("utf-8", "replace").encode("utf-16"))),
    "overwritten": _overwritten,
    "folder": _folder,
    "dangling link": _link("nowhere"),
    "link to itself": _link("itself"),
    "list": _write(b"[]"),
    "text": _write(b'"text"'),
    "null": _write(b"null"),
    "nested": _write(b"[" * 100_000),
    "long number": _write(b"9" * 5000),
}
"""Ways in which a file is damaged as a whole."""

CASES = [(file, name, 0) for file in FILES for name in WHOLE] + [
    (file, "other values", number)
    for file in FILES if file.endswith((".json", ".jsonl", ".yaml"))
    for number in range(10)
]  # fmt: skip


def damage(path: Path, way: str, number: int) -> None:
    """Damage a file; the same case always gives the same bytes."""
    draw = random.Random(f"{path.name} {way} {number}")
    (_other_values if way == "other values" else WHOLE[way])(path, draw)


SUITE: dict[str, Any] = {
    "question": "Why?", "template": "chatml", "overlap": 3, "published": ["S1"], "trained_on": ["a.json"],
    "text": {"prose": {"data": "x.txt", "window": 16, "stride": 4, "rows": 3}},
    "conversations": {"rows": {"data": ["a", "b"], "format": "alpaca", "max_length": 3}},
    "choices": {"items": {"data": "general", "forms": ["cloze"], "rules": ["sum"]}},
    "harness": {"task": {"task": "t", "include": "f", "shots": 0, "rows": 3}},
    "answers": {"asked": {"data": "x", "max_new_tokens": 3, "temperature": 0.5, "top_p": 0.5, "seed": 0}},
    "prompts": {"fixed": {"prompts": ["Hi"], "max_new_tokens": 3}},
    "judge": {"sets": ["asked"], "model": "m", "endpoint": "http://me:pass-77@h/v1", "timeout": 3, "retries": 1},
}  # fmt: skip

STUDY: dict[str, Any] = {
    "base": "b.yaml", "question": "Why?", "axes": {"data.mask": ["a", "b"]}, "arms": {"x": {"model.lr": 1}, "y": {}},
    "baseline": "x, mask=a", "seeds": [0, 1], "budget": {"equal": "steps", "amount": 3}, "settings": {"a.b": 1},
    "primary": "answer", "answers": 3, "validations": 2, "checkpoint": "last",
}  # fmt: skip


def odd_settings(base: dict[str, Any], number: int) -> str:
    """A suite or study, as YAML, with something odd in one or two places."""
    draw = random.Random(f"settings {number}")
    for _ in range(draw.randint(1, 2)):
        base = _changed(base, draw)
    return str(yaml.safe_dump(base))
