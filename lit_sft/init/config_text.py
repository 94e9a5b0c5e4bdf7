"""A proposal as a YAML file, with a comment on every choice."""

from __future__ import annotations

import json
import re
from typing import Any

from data_modules.rendering.masking import MaskName
from data_modules.rendering.templates import TemplateName
from data_modules.wording import counted
from lit_sft.init.findings import over_long_records
from lit_sft.init.machine import Machine
from lit_sft.init.proposal import Proposal
from lit_sft.init.survey import Lengths, Survey

Line = tuple[str, Any, str]
"""A setting, its value and a comment; a value of None starts a section."""

_LEARNING_RATES = {"lora": 2e-4, "full": 2e-5, "random": 3e-3}
_SLOWER_WITH_PAIRS = 10


def config_text(
    data: str,
    backbone: dict[str, Any],
    found: Survey,
    measured: Lengths,
    proposal: Proposal,
    machine: Machine,
    *,
    template: TemplateName,
    mask: MaskName,
) -> str:
    """The config file.

    Args:
        data: The data as the user named it.
        backbone: The model's settings.
        found: What is in the data.
        measured: Lengths of the examples.
        proposal: The proposed settings.
        machine: Where they are meant for.
        template: How conversations are rendered.
        mask: Which tokens carry the loss.
    """
    shown = f"{'about ' * found.is_estimate}{counted(found.num_records, 'record')}, {found.format}"
    lines: list[Line] = [
        ("data_module", "text" if found.is_text else "sft", "plain text" if found.is_text else "conversations"),
        *_model(backbone, proposal, found, max_new_tokens=max(16, min(256, proposal.max_length // 2))),
        ("data", None, ""),
        ("  train", data, shown),
        *([("  columns", found.columns, "your columns by the fields that they are read as")] if found.columns else []),
        *_invalid(found),
        *_held_out(proposal.held_out),
        *(_blocks(measured, proposal) if found.is_text else _examples(found, measured, proposal, template, mask)),
        ("  batch_size", proposal.batch_size, f"{'blocks' if found.is_text else 'examples'} in a step"),
        ("  token_budget", proposal.token_budget, f"larger batches are split; {_memory(proposal, machine)}"),
        ("trainer", None, ""),
        ("  precision", machine.precision, machine.why),
        ("  max_epochs", proposal.epochs, f"{proposal.tokens:,} tokens each"),
        *_callbacks(found, proposal.held_out),
        *_checkpoint(found, proposal.held_out),
    ]
    head = f"# Made by `lit-sft init` for {machine.name} with {machine.memory / 1e9:.0f} GB of free memory.\n"
    return head + "\n".join(map(_written, lines)) + "\n"


def _model(backbone: dict[str, Any], proposal: Proposal, found: Survey, max_new_tokens: int) -> list[Line]:
    is_random = "config" in backbone
    learning_rate = _LEARNING_RATES["random" if is_random else proposal.tuning]
    learning_rate /= _SLOWER_WITH_PAIRS if found.is_preference else 1
    comments = {"config": "a small model with random weights; name a model to fine-tune that one"}
    recomputed: list[Line] = [("    gradient_checkpointing", True, "less memory, a third more compute")]
    lora: list[Line] = [("    lora", {"rank": 8, "alpha": 16, "target_modules": "all-linear"}, "")]
    dpo: list[Line] = [
        ("  objective", {"name": "dpo", "beta": 0.1}, "docs/preferences.md; a smaller beta moves further")
    ]
    schedule = {"lr": learning_rate, "schedule": "cosine", "warmup_ratio": 0.05}
    return [
        ("model", None, ""),
        ("  backbone", None, ""),
        *((f"    {name}", value, comments.get(name, "")) for name, value in backbone.items()),
        ("    tuning", proposal.tuning, proposal.why_tuning),
        *(lora if proposal.tuning == "lora" else []),
        *(recomputed if proposal.is_recomputed else []),
        ("  optimizer", schedule, ""),
        *(dpo if found.is_preference else []),
        ("  generation", {"max_new_tokens": max_new_tokens}, "of `lit-sft test` and `predict`"),
    ]


def _held_out(share: float) -> list[Line]:
    if not share:
        return [
            ("  val_fraction", 0, "too few records to hold any out; the run ends with its last checkpoint"),
            ("  test_fraction", 0, ""),
        ]
    return [
        ("  val_fraction", share, "held out to choose the best checkpoint"),
        ("  test_fraction", share, "held out for `lit-sft test`"),
    ]


def _invalid(found: Survey) -> list[Line]:
    lines: list[Line] = []
    if found.rules.consecutive != "error":
        lines.append(("  consecutive", found.rules.consecutive, "several messages of one role in a row are joined"))
        if not found.is_text:
            lines.append(("  first_answer", found.rules.first_answer, "an answer before any question is left out"))
    if found.num_invalid:
        lines.append(("  on_invalid", "drop", f"left out: {counted(found.num_invalid, 'invalid record')}"))
    return lines


def _examples(
    found: Survey, measured: Lengths, proposal: Proposal, template: TemplateName, mask: MaskName
) -> list[Line]:
    of_template = {"tokenizer": "the model's own chat template", "chatml": "<|im_start|>user ... <|im_end|>"}
    several = "every answer carries the loss" if found.has_several_answers else "the answer carries the loss"
    several = "both answers of a pair are compared" if found.is_preference else several
    percentiles = ", ".join(f"{share:.0%} {measured.percentile(share):,}" for share in (0.5, 0.95, 0.99, 1))
    over_long = over_long_records(found, measured, proposal)
    is_split = bool(over_long) and found.has_several_answers
    split: list[Line] = [("  over_long", "split", "between turns, so that every exchange that fits is trained")]
    return [
        ("  template", template, of_template.get(template, "the model has no chat template of its own")),
        ("  mask", mask, several),
        (
            "  max_length",
            proposal.max_length,
            f"tokens; the records have up to: {percentiles}{f'. {over_long}' * bool(over_long)}",
        ),
        *(split if is_split else []),
    ]


def _blocks(measured: Lengths, proposal: Proposal) -> list[Line]:
    median = measured.percentile(0.5)
    return [("  block_size", proposal.max_length, f"tokens; half of the documents have up to {median:,}")]


def _callbacks(found: Survey, share: float) -> list[Line]:
    lines: list[Line] = [("  callbacks", None, ""), ("    - class_path", "callbacks.RunHealth", "speed and gradients")]
    if found.is_text or found.is_preference or not share:
        return lines
    held_out = {"num_held_out": 3, "max_new_tokens": 64}
    sample: list[Line] = [("    - class_path", "callbacks.SampleGeneration", "answers after every epoch")]
    return [*lines, *sample, ("      init_args", held_out, "")]


def _checkpoint(found: Survey, share: float) -> list[Line]:
    if not (found.is_preference and share):
        return []
    return [("checkpoint", {"monitor": "val/preference_loss"}, "the best is the one that tells the answers apart")]


def _memory(proposal: Proposal, machine: Machine) -> str:
    return f"a step takes about {proposal.memory / 1e9:.1f} GB of {machine.memory / 1e9:.0f} GB by our estimate"


def _written(line: Line) -> str:
    name, value, comment = line
    text = name + ":" if value is None else f"{name}: {_yaml(value)}"
    return f"{text} # {comment}" if comment else text


def _yaml(value: Any) -> str:
    """A value in YAML's flow style, in one line."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_yaml(key)}: {_yaml(part)}' for key, part in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, str):
        is_plain = re.fullmatch(r"[A-Za-z_/][\w./-]*", value, flags=re.ASCII) and value.lower() not in _WORDS
        return value if is_plain else json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):
        return f"{value:.1e}" if value < 1e-3 else str(value)
    return json.dumps(value)


_WORDS = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
"""Words that YAML does not read as text."""
