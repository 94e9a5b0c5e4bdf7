"""What is proposed for data, a model and a machine: exact values, and what must hold for any of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from data_modules.records.conversation import Conversation, Message, Role
from data_modules.records.splits import keys_of, split_of
from data_modules.records.turn_order import TurnRules
from lit_sft.init.findings import findings, over_long_records
from lit_sft.init.machine import Machine
from lit_sft.init.model_size import ModelSize, size_of
from lit_sft.init.proposal import batch_size, length_limit, propose, token_budget
from lit_sft.init.survey import Lengths, Survey
from lit_sft.init.trial import Trial
from lit_sft.models.adapters import LoraSettings
from lit_sft.models.flops import ModelFlops, model_flops
from lit_sft.models.model_config import config_from
from tests.conftest import MODELS

MACHINE = Machine("cpu", "CPU", 16 * 10**9, "32-true", "why", 1e9)
FLOPS = ModelFlops(layers=85_000_000, adapters=0, head=38_000_000, scores=9_216)
SIZE = ModelSize(124_000_000, 12, 768, 3072, False, FLOPS, replace(FLOPS, adapters=1_000_000))
LENGTHS = Lengths(tuple(range(1, 101)), (1,) * 100)


def conversations(num: int, *, answers: int = 1, role: Role = Role.ASSISTANT) -> list[Conversation]:
    if role is Role.TEXT:
        return [Conversation((Message(role, f"text {n}"),), f"x:{n}") for n in range(num)]
    turns = [(Message(Role.USER, f"q {n}"), Message(role, f"a {n}")) * answers for n in range(num)]
    return [Conversation(pair, f"x:{n}") for n, pair in enumerate(turns)]


def found(num: int = 200, **options: object) -> Survey:
    rows = conversations(num, **options)  # type: ignore[arg-type]
    return Survey("alpaca", {}, TurnRules(), 0, "", rows, num, False)


@pytest.mark.parametrize(
    ("longest", "context", "expected"), [(33, 1024, 64), (64, 1024, 64), (65, 1024, 128), (900, 512, 512)]
)
def test_length_limit_is_rounded_up_within_the_context(longest: int, context: int, expected: int) -> None:
    assert length_limit(Lengths((longest,), (1,)), context) == expected


def test_length_limit_keeps_99_percent_whole() -> None:
    lengths = Lengths((*[10] * 99, 5000), (1,) * 100)
    assert lengths.percentile(0.99) == 10
    assert length_limit(lengths, 8192) == 64
    assert lengths.percentile(1) == 5000


@pytest.mark.parametrize(("rows", "expected"), [(1, 4), (200, 4), (400, 8), (1600, 32), (10**6, 32)])
def test_batch_size_gives_an_epoch_about_fifty_steps(rows: int, expected: int) -> None:
    assert batch_size(rows) == expected


@given(st.floats(-1e12, 1e12), st.integers(1, 10**9), st.integers(1, 4096))
def test_token_budget_fits_into_memory_or_is_one_example(free: float, per_token: int, longest: int) -> None:
    budget = token_budget(free, per_token, longest)
    assert longest <= budget <= max(longest, 16384)
    assert budget == longest or budget * per_token <= free


def test_memory_of_gpt2_is_that_of_the_formula_times_what_was_measured() -> None:
    assert SIZE.bytes_per_token("full", is_mixed=True) == round(1.8 * 82 * 768 * 12)
    assert SIZE.bytes_per_token("full", is_mixed=False) == round(2.4 * 82 * 768 * 12)
    assert SIZE.bytes_per_token("lora", is_mixed=False) == round(3.8 * 82 * 768 * 12)
    assert SIZE.bytes_per_token("lora", is_mixed=False, is_recomputed=True) == round(0.35 * 3.8 * 82 * 768 * 12)
    assert SIZE.state_bytes("full", is_mixed=True) == 18 * 124_000_000
    assert SIZE.state_bytes("full", is_mixed=False) == 16 * 124_000_000
    assert SIZE.state_bytes("lora", is_mixed=True) == 2 * 124_000_000 + 16 * 1_000_000
    assert SIZE.state_bytes("lora", is_mixed=False) == 4 * 124_000_000 + 16 * 1_000_000


@pytest.mark.parametrize(("name", "is_gated"), [("gpt2", False), ("qwen2", True), ("llama", True)])
def test_size_of_a_model_is_that_of_its_weights(name: str, is_gated: bool) -> None:
    config = config_from(MODELS[name])
    config.vocab_size = 300
    lora = LoraSettings(rank=4)
    size = size_of(config, lora)
    assert size.weights == sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    assert (size.layers, size.width, size.is_gated) == (2, 32, is_gated)
    assert size.inner == (64 if is_gated else 128)
    assert (size.flops, size.lora_flops) == (model_flops(config), model_flops(config, lora))


def test_few_records_get_adapters_and_many_get_all_weights() -> None:
    few = propose(found(), LENGTHS, SIZE, MACHINE, context=1024, is_pretrained=True)
    many = propose(replace(found(), num_records=9_000), LENGTHS, SIZE, MACHINE, context=1024, is_pretrained=True)
    small = replace(MACHINE, memory=6 * 10**9)
    narrow = propose(replace(found(), num_records=9_000), LENGTHS, SIZE, small, context=1024, is_pretrained=True)
    random = propose(found(), LENGTHS, SIZE, MACHINE, context=1024, is_pretrained=False)
    assert [each.tuning for each in (few, many, narrow, random)] == ["lora", "full", "lora", "full"]
    assert few.why_tuning == "200 records are few for 124 M weights"
    assert narrow.why_tuning == "training all weights takes 2.0 GB before the first token"


def test_less_memory_lowers_the_budget_then_recomputes_then_says_that_it_does_not_fit() -> None:
    def at(memory: float, longest: int = 1024) -> tuple[int, bool, bool]:
        machine, long = replace(MACHINE, memory=int(memory)), Lengths((longest,), (longest,))
        proposal = propose(found(), long, SIZE, machine, context=1024, is_pretrained=True)
        assert not proposal.fits or proposal.memory <= 0.5 * memory
        return proposal.token_budget, proposal.is_recomputed, proposal.fits

    state, per_token = 4 * 124e6 + 16e6, 3.8 * 82 * 768 * 12
    assert at(1e12) == (16384, False, True)
    assert at(2 * (state + per_token * 2000)) == (1792, False, True)
    assert at(2 * (state + per_token * 900))[1:] == (True, True)
    assert at(state) == (1024, True, False)


def test_time_of_an_epoch_is_that_of_the_operations_of_its_examples() -> None:
    proposal = propose(found(200), LENGTHS, SIZE, MACHINE, context=64, is_pretrained=False)
    held_out = found(200).share_to_hold_out()
    records = round(200 * (1 - 2 * held_out))
    kept = [min(length, 64) for length in range(1, 101)]
    supervised = sum(round(min(1.0, 64 / length)) for length in range(1, 101))
    expected = records / 100 * FLOPS.flops(kept, supervised, "full") / MACHINE.flops
    assert proposal.seconds == pytest.approx(expected)
    assert proposal.tokens == round(sum(kept) / 100 * records)


def test_text_has_blocks_of_the_context() -> None:
    text = found(50, role=Role.TEXT)
    assert text.is_text
    proposal = propose(text, Lengths((3000,) * 50, (3000,) * 50), SIZE, MACHINE, context=512, is_pretrained=False)
    assert proposal.max_length == 512
    blocks = [*[512] * 5, 440] * 50
    share = round(50 * (1 - 2 * proposal.held_out)) / 50
    assert proposal.seconds == pytest.approx(share * FLOPS.flops(blocks, 150_000, "full") / MACHINE.flops)


@given(st.integers(1, 400))
def test_share_to_hold_out_leaves_records_in_every_split_if_any_does(num: int) -> None:
    survey = found(num)
    share = survey.share_to_hold_out()
    splits = [split_of(keys_of(each)[0], {"val": share, "test": share}) for each in survey.conversations]
    if share:
        assert {"val", "test", "train"} <= set(splits)
    assert share in ((0, 0.05, 0.1, 0.2, 0.3) if num < 40 else (0.05, 0.1, 0.2, 0.3))
    assert share == 0 or num > 2


def test_several_answers_are_noticed_only_if_trained() -> None:
    assert found(3, answers=2).has_several_answers
    assert not found(3).has_several_answers
    row = conversations(1, answers=2)[0]
    turns = (row.turns[0], replace(row.turns[1], weight=0.0), *row.turns[2:])
    assert not replace(found(1), conversations=[replace(row, turns=turns)]).has_several_answers


def test_records_above_the_limit_are_counted_for_the_whole_data() -> None:
    lengths = Lengths((*[10] * 98, 600, 5000), (1,) * 100)
    proposal = propose(found(200), lengths, SIZE, MACHINE, context=1024, is_pretrained=True)
    assert proposal.max_length == 640
    said = over_long_records(found(200), lengths, proposal)
    assert said.startswith("about 2 of 200 records (1.0%) with more than 640 tokens are cut: ")
    assert said.endswith("; the longest has 5,000")
    assert over_long_records(found(200), Lengths((640,) * 200, (1,) * 200), proposal) == ""
    exact = Lengths((*[10] * 198, 641, 641), (1,) * 200)
    assert over_long_records(found(200), exact, proposal).startswith("2 of 200 records (1.0%)")
    text = found(50, role=Role.TEXT)
    assert over_long_records(text, lengths, proposal) == ""  # is cut into blocks


def test_time_is_that_of_the_trial_or_a_lower_bound() -> None:
    proposal = propose(found(200), LENGTHS, SIZE, MACHINE, context=64, is_pretrained=False)
    trial = Trial(per_token=0.01, per_step=2.0)
    seconds = 0.01 * proposal.tokens + 2.0 * proposal.steps
    tried = findings(found(200), LENGTHS, proposal, 124_000_000, MACHINE, trial)[3]
    assert tried.startswith(f"time    about {seconds / 60:.1f} minutes an epoch, ")
    assert "by a trial of a few seconds" in tried
    bound = findings(found(200), LENGTHS, proposal, 124_000_000, MACHINE, None)[3]
    assert bound.startswith("time    at least ")
    assert bound.endswith("at the 1 GFLOP/s of a product of matrices of this size")


def pairs(num: int) -> Survey:
    rows = [replace(row, rejected=row) for row in conversations(num)]
    return replace(found(num), format="preference", conversations=rows)


def test_pairs_count_both_documents_and_get_adapters() -> None:
    lengths = Lengths((60,) * 200, (10,) * 200, shorter=(50,) * 200)
    proposal = propose(pairs(200), lengths, SIZE, MACHINE, context=1024, is_pretrained=True)
    assert (proposal.max_length, proposal.tuning, proposal.is_preference) == (64, "lora", True)
    assert proposal.tokens == 110 * round(200 * (1 - 2 * proposal.held_out))
    assert proposal.memory == SIZE.step_bytes(
        "lora", proposal.batch_size * 128, is_mixed=False, is_recomputed=proposal.is_recomputed
    )
