"""DPO against a loop over pairs in float64: each document on its own through the model and the reference."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies
from torch import Tensor, nn

from data_modules.batching.batch import Batch, collate
from data_modules.encoding.example import Example
from data_modules.errors import UserError
from data_modules.rendering.masking import MASKS
from data_modules.rendering.segments import SegmentKind
from lit_sft.metrics.preferences import PreferenceMetrics
from lit_sft.models.adapters import LoraSettings, causal_lm, with_adapters
from lit_sft.models.loss import loss_of_nll, reference_nll, supervised_loss, token_nll
from lit_sft.models.objectives import ObjectiveSettings, objective_of
from lit_sft.models.preferences import PreferenceLoss, dpo_losses
from lit_sft.models.reference import keep_reference
from tests.conftest import MODELS
from tests.lit_sft.models.test_objectives import LAYOUTS, trained
from tests.lit_sft.models.test_shared_prefixes import random_model
from tests.random_trees import random_examples

OUTPUT_ONLY = MASKS["output_only"]


@pytest.fixture(scope="module")
def models() -> dict[tuple[str, str], tuple[nn.Module, nn.Module]]:
    return {(name, tuning): trained(name, tuning) for name in MODELS for tuning in ("full", "lora")}


def random_pairs(seed: int) -> list[Example]:
    """Pairs with prompts that may share beginnings, and answers that may begin alike."""
    generator = np.random.default_rng(seed)
    pairs = []
    for number in range(int(generator.integers(1, 5))):
        prompt = generator.integers(0, 3, generator.integers(1, 25))
        start = generator.integers(0, 3, generator.integers(0, 12))
        answers = [np.concatenate([start, generator.integers(0, 7, generator.integers(1, 9))]) for _ in range(2)]
        pairs.append(pair(prompt, *answers, number=number))
    return pairs


def pair(prompt: Any, chosen: Any, rejected: Any, number: int = 0) -> Example:
    halves = []
    for answer in (chosen, rejected):
        ids = np.concatenate([prompt, answer]).astype(np.int32)
        kinds = np.repeat(
            np.array([SegmentKind.USER, SegmentKind.FINAL_ANSWER], dtype=np.uint8), [len(prompt), len(answer)]
        )
        halves.append(Example(ids, kinds, np.zeros(len(ids), dtype=np.int16), f"f:{number}"))
    one, other = halves
    return Example(one.input_ids, one.kinds, one.turns, one.origin, rejected=other)


def halves(example: Example) -> tuple[Example, Example]:
    assert example.rejected is not None
    return example, example.rejected


def has_answer(half: Example) -> bool:
    return bool((half.kinds == SegmentKind.FINAL_ANSWER).any())


def rated(seed: int) -> list[Example]:
    """Pairs, and pairs with only one of their answers."""
    examples = []
    for number, each in enumerate(random_pairs(seed)):
        assert each.rejected is not None
        bare = int((each.kinds == SegmentKind.USER).sum())
        prompt = replace(each, input_ids=each.input_ids[:bare], kinds=each.kinds[:bare], turns=each.turns[:bare])
        prompt = replace(prompt, rejected=None)
        one, other = ((each, each.rejected), (each, prompt), (prompt, each.rejected))[(seed + number) % 3]
        examples.append(replace(one, rejected=other))
    return examples


def logp(model: nn.Module, example: Example) -> Tensor:
    """The log-probability of an answer, token by token, from the library's own logits."""
    ids = torch.from_numpy(example.input_ids.astype("int64")).unsqueeze(0)
    logits = causal_lm(model)(input_ids=ids, use_cache=False).logits[0]
    total = torch.zeros((), dtype=logits.dtype)
    for position in range(1, len(example)):
        if example.kinds[position] == SegmentKind.FINAL_ANSWER:
            total = total + logits[position - 1].log_softmax(-1)[ids[0, position]]
    return total


def brute_force(model: nn.Module, base: nn.Module, pairs: list[Example], beta: float, smoothing: float) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for each in pairs:
        assert each.rejected is not None
        margin = logp(model, each) - logp(model, each.rejected) - logp(base, each) + logp(base, each.rejected)
        preferred = torch.sigmoid(beta * margin)
        total = total - (1 - smoothing) * preferred.log() - smoothing * (1 - preferred).log()
    return total


def answer_by_answer(model: nn.Module, base: nn.Module, examples: list[Example], beta: float) -> Tensor:
    """APO-zero with a weight of 2 for good answers and of 0.5 for bad ones."""
    total = torch.zeros((), dtype=torch.float64)
    for example in examples:
        for half, weight, sign in zip(halves(example), (2.0, 0.5), (1, -1), strict=True):
            if has_answer(half):
                total = total + weight * (1 - torch.sigmoid(sign * beta * (logp(model, half) - logp(base, half))))
    return total


def check_gradients(model: nn.Module, total: Tensor, expected: Tensor) -> None:
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    ours = torch.autograd.grad(total, parameters)
    theirs = torch.autograd.grad(expected, parameters, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("name", MODELS)
@hypothesis.given(
    seed=strategies.integers(0, 2**32 - 1),
    layout=strategies.sampled_from(list(LAYOUTS)),
    beta=strategies.sampled_from([0.05, 0.1, 2.0]),
    smoothing=strategies.sampled_from([0.0, 0.2]),
)
@hypothesis.settings(max_examples=8)
def test_loss_and_gradients_equal_those_of_a_loop_over_pairs(
    models: dict[tuple[str, str], tuple[nn.Module, nn.Module]],
    name: str,
    tuning: str,
    seed: int,
    layout: str,
    beta: float,
    smoothing: float,
) -> None:
    model, base = models[name, tuning]
    pairs = random_pairs(seed)
    batch = collate(pairs, mask=OUTPUT_ONLY, pairs=True, **LAYOUTS[layout])
    settings = ObjectiveSettings("dpo", beta=beta, label_smoothing=smoothing)
    total, nll = objective_of(settings)(model, batch)
    assert nll.tolist() == pytest.approx(token_nll(model, batch).tolist(), rel=1e-12)
    check_gradients(model, total, brute_force(model, base, pairs, beta, smoothing))


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("name", MODELS)
@hypothesis.given(
    seed=strategies.integers(0, 2**32 - 1),
    layout=strategies.sampled_from(list(LAYOUTS)),
    beta=strategies.sampled_from([0.1, 2.0]),
)
@hypothesis.settings(max_examples=5)
def test_apo_zero_equals_a_loop_over_answers(
    models: dict[tuple[str, str], tuple[nn.Module, nn.Module]],
    name: str,
    tuning: str,
    seed: int,
    layout: str,
    beta: float,
) -> None:
    model, base = models[name, tuning]
    examples = rated(seed)
    batch = collate(examples, mask=OUTPUT_ONLY, pairs=True, **LAYOUTS[layout])
    settings = ObjectiveSettings("apo_zero", beta=beta, desirable_weight=2.0, undesirable_weight=0.5)
    total, _ = objective_of(settings)(model, batch)
    assert batch.normaliser == float(batch.weight) == len(examples)
    check_gradients(model, total, answer_by_answer(model, base, examples, beta))


def test_pairs_that_begin_alike_are_computed_once() -> None:
    prompt = np.arange(20) % 3
    batch = collate([pair(prompt, [4], [5, 6])], mask=OUTPUT_ONLY, pairs=True, pack=True, share_prefixes=True)
    assert batch.tree is not None
    assert batch.tree.lengths == (20, 1, 2)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_before_training_the_loss_is_log_two_and_only_the_difference_has_a_gradient(tuning: str) -> None:
    model: nn.Module = random_model("qwen2", torch.float32)
    if tuning == "lora":
        model = with_adapters(model, LoraSettings(rank=2))  # type: ignore[arg-type]
    keep_reference(model)
    batch = collate(random_pairs(7), mask=OUTPUT_ONLY, pairs=True, pack=True, share_prefixes=True)
    total, _ = objective_of(ObjectiveSettings("dpo"))(model, batch)
    assert float(total.detach()) == pytest.approx(batch.num_pairs * math.log(2), rel=1e-6)


def test_dummy_batch_adds_nothing_but_is_connected() -> None:
    model, _ = trained("gpt2", "full")
    batch = collate(random_pairs(7), mask=OUTPUT_ONLY, pairs=True, pack=True, counts=False)
    total, nll = objective_of(ObjectiveSettings("dpo"))(model, batch)
    assert (float(total.detach()), nll.tolist(), float(batch.weight)) == (0.0, [], 0.0)
    total.backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters() if p.requires_grad)


def test_dropout_of_the_model_leaves_the_reference_alone() -> None:
    model = random_model("gpt2", torch.float64)
    keep_reference(model)
    batch = collate(random_pairs(3), mask=OUTPUT_ONLY, pairs=True, pack=True)
    expected = token_nll(model, batch)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    model.train()
    reference = reference_nll(model, batch)
    assert reference is not None
    assert reference.tolist() == expected.tolist()
    assert model.training
    model, _ = trained("gpt2", "full")
    del model.reference
    assert reference_nll(model, batch) is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weighted_sum_as_a_function_of_the_nats_is_the_supervised_loss(layout: str) -> None:
    model, _ = trained("llama", "full")
    batch = collate(random_examples(11), mask=MASKS["whole_sequence"], **LAYOUTS[layout])
    weights = batch.weights.flatten()[batch.targets]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    results = [supervised_loss(model, batch), loss_of_nll(model, batch, lambda nll: (nll * weights).sum())]
    gradients = [torch.autograd.grad(total, parameters) for total, _ in results]
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("score_all", [True, False])
def test_metrics_equal_those_of_a_loop(layout: str, score_all: bool) -> None:
    model, base = trained("qwen2", "full")
    pairs = random_pairs(5) + random_pairs(6)
    pairs = [replace(each, origin=f"f:{number}") for number, each in enumerate(pairs)]
    metrics, beta = PreferenceMetrics(PreferenceLoss(0.3, 0.1), by_record=True), 0.3
    for part in (pairs[:2], pairs[2:]):
        batch: Batch = collate(part, mask=OUTPUT_ONLY, pairs=True, score_all=score_all, **LAYOUTS[layout])
        metrics.update(token_nll(model, batch), batch, reference_nll(model, batch))
    metrics.update(torch.zeros(0), collate(pairs[:1], mask=OUTPUT_ONLY, pairs=True, counts=False))
    values: list[tuple[float, float, float, float]] = []
    with torch.no_grad():
        for each in pairs:
            assert each.rejected is not None
            values.append(tuple(float(logp(m, e)) for m in (model, base) for e in (each, each.rejected)))  # type: ignore[arg-type]
    rewards = [(beta * (c - rc), beta * (r - rr)) for c, r, rc, rr in values]
    rejected_tokens = sum(int((e.rejected.kinds == SegmentKind.FINAL_ANSWER).sum()) for e in pairs if e.rejected)
    count = len(pairs)
    expected = {
        "preference_accuracy": sum(c > r for c, r, _, _ in values) / count,
        "nll/rejected": -sum(r for _, r, _, _ in values) / rejected_tokens,
        "preference_loss": float(dpo_losses(torch.tensor(rewards, dtype=torch.float64), 0.1).mean()),
        "reward_accuracy": sum(c > r for c, r in rewards) / count,
        "reward_margin": sum(c - r for c, r in rewards) / count,
        "reward/chosen": sum(c for c, _ in rewards) / count,
        "reward/rejected": sum(r for _, r in rewards) / count,
    }
    assert metrics.compute() == pytest.approx(expected, rel=1e-9)
    preferred = {each.origin: (float(c > r), 1.0) for each, (c, r, _, _) in zip(pairs, values, strict=True)}
    assert {origin: sums.preferred for origin, sums in metrics.take_records().items()} == preferred
    assert set(preferred.values()) == {(0.0, 1.0), (1.0, 1.0)}
    assert metrics.take_records() == {}


def test_pairs_of_one_record_are_added_up() -> None:
    model, _ = trained("qwen2", "full")
    metrics = PreferenceMetrics(PreferenceLoss(0.1), by_record=True)
    pairs = [replace(each, origin="f:1") for each in random_pairs(5) + random_pairs(6)]
    batch = collate(pairs, mask=OUTPUT_ONLY, pairs=True)
    metrics.update(token_nll(model, batch), batch)
    share = metrics.compute()["preference_accuracy"]
    assert metrics.take_records()["f:1"].preferred == (round(share * len(pairs)), len(pairs))


@pytest.mark.parametrize("score_all", [True, False])
def test_metrics_of_rated_answers_equal_those_of_a_loop(score_all: bool) -> None:
    model, base = trained("qwen2", "full")
    settings = ObjectiveSettings("apo_zero", beta=0.3, desirable_weight=2.0, undesirable_weight=0.5)
    metrics = PreferenceMetrics(settings.preference_loss, by_record=True)
    examples = [each for seed in range(3) for each in rated(seed)]
    batch = collate(examples, mask=OUTPUT_ONLY, pairs=True, score_all=score_all, pack=True, share_prefixes=True)
    metrics.update(token_nll(model, batch), batch, reference_nll(model, batch))
    rewards: dict[bool, list[float]] = {True: [], False: []}
    preferred, tokens, nats = [], 0, 0.0
    with torch.no_grad():
        for each in examples:
            answers = {good: half for good, half in zip((True, False), halves(each), strict=True) if has_answer(half)}
            for good, half in answers.items():
                rewards[good].append(0.3 * float(logp(model, half) - logp(base, half)))
            if len(answers) == 2:
                preferred.append(float(logp(model, answers[True]) > logp(model, answers[False])))
            if False in answers:
                tokens += int((answers[False].kinds == SegmentKind.FINAL_ANSWER).sum())
                nats -= float(logp(model, answers[False]))
        loss = float(answer_by_answer(model, base, examples, 0.3)) / len(examples)
    found = metrics.compute()
    chosen, rejected = (sum(rewards[good]) / len(rewards[good]) for good in (True, False))
    assert found.pop("reward_accuracy") in [number / len(preferred) for number in range(len(preferred) + 1)]
    expected = {
        "preference_accuracy": sum(preferred) / len(preferred),
        "nll/rejected": nats / tokens,
        "preference_loss": loss,
        "reward/chosen": chosen,
        "reward/rejected": rejected,
        "reward_margin": chosen - rejected,
    }
    assert found == pytest.approx(expected, rel=1e-9)
    assert sum(sums.preferred[1] for sums in metrics.take_records().values()) == len(preferred) < len(examples)


def test_metrics_without_a_reference_have_no_rewards() -> None:
    model, _ = trained("qwen2", "full")
    metrics = PreferenceMetrics(PreferenceLoss(0.1))
    batch = collate(random_pairs(5), mask=OUTPUT_ONLY, pairs=True)
    metrics.update(token_nll(model, batch), batch)
    assert metrics.compute().keys() == {"preference_accuracy", "nll/rejected"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "dpo", "beta": 0}, "beta 0: expected more than 0"),
        ({"beta": 0.5}, "beta 0.5: only DPO and APO-zero have a beta"),
        ({"name": "dpo", "desirable_weight": 2.0}, "desirable_weight 2.0, undesirable_weight 1.0: only APO-zero has"),
        ({"name": "apo_zero", "undesirable_weight": 0.0}, "undesirable_weight 0.0: expected more than 0"),
        ({"name": "apo_zero", "label_smoothing": 0.1}, "label_smoothing 0.1 with `--model.objective.name apo_zero`"),
        ({"name": "dpo", "label_smoothing": 0.5}, "label_smoothing 0.5: expected below 0.5"),
        ({"name": "dpo", "kl_weight": 0.5}, "kl_weight 0.5 with `--model.objective.name dpo`, which already compares"),
        ({"name": "dpo", "neftune_alpha": 5.0}, "neftune_alpha 5.0 with `--model.objective.name dpo`"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"--model.objective.{message}"):
        ObjectiveSettings(**settings)
