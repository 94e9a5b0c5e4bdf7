"""The trial trains on batches like those of `fit`, for a bounded time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from torch import nn
from transformers import PretrainedConfig

from data_modules.encoding.example import Example
from data_modules.rendering.masking import MASKS
from data_modules.rendering.segments import SegmentKind
from lit_sft.init import trial
from lit_sft.init.machine import Machine
from lit_sft.init.proposal import Proposal
from lit_sft.init.trial import Passes, Trial, build, is_possible, try_steps
from lit_sft.models.adapters import LoraSettings
from lit_sft.models.model_config import config_from
from tests.conftest import MODELS

MACHINE = Machine("cpu", "CPU", 16 * 10**9, "32-true", "why", 1e9)
PROPOSAL = Proposal(
    max_length=32, batch_size=4, token_budget=64, tuning="full", why_tuning="", is_recomputed=False, memory=0,
    fits=True, epochs=1, held_out=0.0, tokens=1000, seconds=1.0, steps=10,
)  # fmt: skip
LORA = LoraSettings(rank=2)


def example(length: int, kind: SegmentKind = SegmentKind.FINAL_ANSWER) -> Example:
    kinds = np.full(length, kind, dtype=np.uint8)
    return Example(np.arange(length, dtype=np.int32) % 90, kinds, np.zeros(length, dtype=np.int16), "x:1")


def config(name: str = "gpt2") -> PretrainedConfig:
    found = config_from(MODELS[name])
    found.vocab_size = 100
    return found


class Clocked:
    """Stands in for `Passes`: a token takes 10 ms and a step 2 s, without computing anything.

    Attributes:
        computed: Tokens of each pass.
    """

    packs = True

    def __init__(self, model: nn.Module, proposal: Proposal, machine: Machine, mask: object) -> None:
        self.proposal = proposal
        self.computed: list[int] = []
        made.append(self)

    def run(self, *examples: Example) -> float:
        self.computed.append(sum(map(len, examples)))
        return 0.01 * self.computed[-1]

    def step(self) -> float:
        return 2.0


made: list[Clocked] = []


def test_trial_measures_seconds_of_tokens_and_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "Passes", Clocked)
    monkeypatch.setattr(trial, "_SECONDS", 10.0)
    measured = try_steps([example(20)] * 50, config(), LORA, PROPOSAL, MACHINE, MASKS["output_only"])
    assert (measured.per_token, measured.per_step) == pytest.approx((0.01, 2.0))
    assert measured.seconds(1000, 10) == pytest.approx(30.0)
    assert max(made[-1].computed) <= 64  # the token budget


@pytest.mark.parametrize("tokens_a_second", [100, 2])
def test_trial_is_over_after_some_seconds_and_long_examples_are_cut(
    tokens_a_second: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "Passes", Clocked)
    monkeypatch.setattr(trial, "_SECONDS", 400 / tokens_a_second / 100)  # enough for 4 tokens, or for 200
    try_steps([example(5000)] * 50, config(), LORA, replace(PROPOSAL, max_length=4096), MACHINE, MASKS["output_only"])
    assert sum(made[-1].computed) < 64 * 8


@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("is_recomputed", [True, False])
def test_every_kind_of_step_is_trained(
    name: str, tuning: str, is_recomputed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_SECONDS", 0.0)
    proposal = replace(PROPOSAL, tuning=tuning, is_recomputed=is_recomputed)
    machine = replace(MACHINE, precision="bf16-mixed" if is_recomputed else "32-true")
    measured = try_steps([example(20), example(40)], config(name), LORA, proposal, machine, MASKS["output_only"])
    assert isinstance(measured, Trial)
    assert measured.per_token > 0 < measured.per_step


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_pairs_are_trained_by_dpo_and_text_in_pieces(tuning: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_SECONDS", 0.0)
    pair = replace(example(30), rejected=example(25))
    proposal = replace(PROPOSAL, tuning=tuning, is_preference=True)
    assert try_steps([pair] * 3, config(), LORA, proposal, MACHINE, MASKS["output_only"]).per_token > 0
    text = replace(PROPOSAL, tuning=tuning, is_text=True)
    documents = [example(200, SegmentKind.TEXT)] * 2
    assert try_steps(documents, config(), LORA, text, MACHINE, MASKS["whole_sequence"]).per_token > 0


def test_a_step_changes_the_trained_weights_only() -> None:
    proposal = replace(PROPOSAL, tuning="lora")
    model = build(config("qwen2"), LORA, proposal, MACHINE)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    passes = Passes(model, proposal, MACHINE, MASKS["output_only"])
    passes.run(example(20)), passes.step()
    changed = {name for name, weight in model.named_parameters() if not weight.equal(before[name])}
    assert changed == {name for name in before if "lora_B" in name}  # the other matrix has no gradient yet


@pytest.mark.parametrize(
    ("weights", "device", "fits", "expected"),
    [
        (10**8, "cpu", True, True),
        (10**8, "cpu", False, False),
        (5 * 10**9, "cpu", True, False),
        (5 * 10**9, "cuda", True, True),
    ],
)
def test_a_model_that_is_too_large_is_not_tried(weights: int, device: str, fits: bool, expected: bool) -> None:
    assert is_possible(weights, replace(PROPOSAL, fits=fits), replace(MACHINE, device=device)) == expected
