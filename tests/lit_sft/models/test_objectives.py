"""Every objective against a loop over tokens in float64, for whatever layout and model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from data_modules.batching.batch import Batch, collate
from data_modules.encoding.example import Example
from data_modules.errors import UserError
from data_modules.rendering.masking import MASKS, resolve_mask
from lit_sft.models.adapters import LoraSettings, causal_lm, with_adapters
from lit_sft.models.flops import model_flops
from lit_sft.models.loss import loss_of_nll, supervised_loss
from lit_sft.models.objectives import ObjectiveSettings, objective_of
from lit_sft.models.reference import keep_reference, reference_model
from tests.conftest import MODELS
from tests.lit_sft.models.test_shared_prefixes import random_model
from tests.random_trees import random_examples

OBJECTIVES: dict[str, dict[str, Any]] = {
    "next token": {},
    "smoothing": {"label_smoothing": 0.1},
    "dft": {"name": "dft"},
    "profit": {"name": "profit", "threshold": 0.15},
    "kl": {"kl_weight": 0.3},
    "smoothing and kl": {"label_smoothing": 0.2, "kl_weight": 0.7},
    "dft and kl": {"name": "dft", "kl_weight": 0.3},
    "profit and kl": {"name": "profit", "threshold": 0.15, "kl_weight": 2.0},
    "noise": {"neftune_alpha": 5.0},
    "everything": {"name": "dft", "kl_weight": 0.3, "neftune_alpha": 5.0},
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "shared": {"pack": True, "share_prefixes": True},
    "packed": {"pack": True},
    "padded": {"pack": False},
}
ModelOf = Callable[[str, str], tuple[nn.Module, nn.Module]]


def trained(name: str, tuning: str) -> tuple[nn.Module, nn.Module]:
    """A model whose trained weights have moved away from its base, and the base."""
    base = random_model(name, torch.float64).requires_grad_(False).eval()
    model: nn.Module = random_model(name, torch.float64)
    if tuning == "lora":
        model = with_adapters(model, LoraSettings(rank=2)).double()  # type: ignore[arg-type]
    keep_reference(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return model, base


@pytest.fixture(scope="module")
def model_of() -> ModelOf:
    models: dict[tuple[str, str], tuple[nn.Module, nn.Module]] = {}

    def _model(name: str, tuning: str) -> tuple[nn.Module, nn.Module]:
        if (name, tuning) not in models:
            models[name, tuning] = trained(name, tuning)
        return models[name, tuning]

    return _model


def token_loss(p: Tensor, r: Tensor, target: int, settings: ObjectiveSettings) -> Tensor:
    """The definitions, one token at a time: p are the model's probabilities, r those of the base."""
    loss = -p[target].log()
    if settings.label_smoothing:
        even = torch.full_like(p, settings.label_smoothing / len(p))
        even[target] += 1 - settings.label_smoothing
        loss = -(even * p.log()).sum()
    if settings.name == "dft":
        loss = loss * p[target].detach()
    if settings.name == "profit" and float(p[target].detach()) < settings.threshold:
        loss = loss * 0
    if settings.kl_weight:
        loss = loss + settings.kl_weight * (r * (r / p).log()).sum()
    return loss


def brute_force(
    model: nn.Module, base: nn.Module, examples: list[Example], batch: Batch, settings: ObjectiveSettings
) -> tuple[Tensor, list[float]]:
    """The sum of the losses and the nats, each document through the model on its own."""
    width, seen = causal_lm(model).config.hidden_size, 0
    length = sum(len(example) for example in examples)
    noise = torch.rand(length, width) * 2 - 1 if settings.neftune_alpha else None
    total, nats = torch.zeros((), dtype=torch.float64), []
    weights, targets = batch.weights.flatten(), set(batch.targets.tolist())
    for index, example in enumerate(examples):
        ids = torch.from_numpy(example.input_ids.astype("int64")).unsqueeze(0)
        embeddings = causal_lm(model).get_input_embeddings()(ids)
        if noise is not None:
            magnitude = settings.neftune_alpha / math.sqrt(len(example) * width)
            embeddings = embeddings + noise[seen : seen + len(example)].double() * magnitude
        logits = causal_lm(model)(inputs_embeds=embeddings, use_cache=False).logits[0]
        of_base = base(input_ids=ids, use_cache=False).logits[0]
        start = seen if batch.boundaries is not None else index * batch.input_ids.shape[1]
        for position in range(1, len(example)):
            if start + position in targets:
                p, r = (each[position - 1].softmax(-1) for each in (logits, of_base))
                target = int(ids[0, position])
                share = float(weights[start + position])
                total = total + share * token_loss(p, r, target, settings)
                nats.append(-math.log(float(p[target].detach())))
        seen += len(example)
    return total, nats


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("name", MODELS)
@hypothesis.given(
    seed=strategies.integers(0, 2**32 - 1),
    objective=strategies.sampled_from(list(OBJECTIVES)),
    layout=strategies.sampled_from(list(LAYOUTS)),
    mask=strategies.sampled_from(sorted(MASKS)),
    reduction=strategies.sampled_from(["token", "sample", "turn"]),
    weight=strategies.sampled_from([None, 0.1]),
)
@hypothesis.settings(max_examples=12, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_loss_nats_and_gradients_equal_those_of_a_loop_over_tokens(
    model_of: ModelOf, name: str, tuning: str, seed: int, objective: str, layout: str, mask: str, reduction: str,
    weight: float | None,
) -> None:  # fmt: skip
    model, base = model_of(name, tuning)
    settings = ObjectiveSettings(**OBJECTIVES[objective])
    examples = random_examples(seed)[:5]
    batch = collate(examples, mask=resolve_mask(mask, weight), reduction=reduction, **LAYOUTS[layout])  # type: ignore[arg-type]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.manual_seed(seed % 1000)
    total, nll = objective_of(settings)(model, batch)
    torch.manual_seed(seed % 1000)
    expected, nats = brute_force(model, base, examples, batch, settings)
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-9, abs=1e-9)
    assert nll.tolist() == pytest.approx(nats, rel=1e-9, abs=1e-9)
    if not len(batch.targets):
        return
    ours = torch.autograd.grad(total, parameters)
    theirs = torch.autograd.grad(expected, parameters, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_is_another_function(model_of: ModelOf, objective: str) -> None:
    model, _ = model_of("qwen2", "full")
    batch = collate(random_examples(3), mask=MASKS["whole_sequence"], pack=True)
    settings = ObjectiveSettings(**OBJECTIVES[objective])
    results = []
    for each in (ObjectiveSettings(), settings):
        torch.manual_seed(0)
        results.append(float(objective_of(each)(model, batch)[0].detach()))
    assert (results[0] == results[1]) == (objective == "next token")
    assert settings.is_nll == (objective in ("next token", "noise"))


def test_label_smoothing_is_that_of_torch(model_of: ModelOf) -> None:
    model, _ = model_of("llama", "full")
    example = max(random_examples(5), key=len)
    batch = collate([example], mask=MASKS["whole_sequence"])
    ids = torch.from_numpy(example.input_ids.astype("int64"))
    logits = model(ids.unsqueeze(0), use_cache=False).logits[0, :-1]
    expected = F.cross_entropy(logits, ids[1:], label_smoothing=0.1, reduction="sum")
    total, _ = objective_of(ObjectiveSettings(label_smoothing=0.1))(model, batch)
    torch.testing.assert_close(total, expected)


def test_label_smoothing_is_that_of_transformers(model_of: ModelOf) -> None:
    from transformers.trainer_pt_utils import LabelSmoother

    model, _ = model_of("gpt2", "full")
    example = max(random_examples(5), key=len)
    batch = collate([example], mask=MASKS["whole_sequence"])
    ids = torch.from_numpy(example.input_ids.astype("int64")).unsqueeze(0)
    logits = model(ids, use_cache=False).logits
    expected = LabelSmoother(epsilon=0.1)({"logits": logits}, ids.clone(), shift_labels=True)
    total, _ = objective_of(ObjectiveSettings(label_smoothing=0.1))(model, batch)
    torch.testing.assert_close(total / len(batch.targets), expected.to(total.dtype), rtol=1e-5, atol=1e-6)


def test_noise_is_that_of_transformers_on_a_document_of_its_own() -> None:
    from transformers.integrations.neftune import neftune_post_forward_hook

    from lit_sft.models.embedding_noise import noisy_embeddings

    model = random_model("qwen2", torch.float32)
    batch = collate([max(random_examples(5), key=len)], mask=MASKS["whole_sequence"])
    embeddings = model.get_input_embeddings()
    embeddings.neftune_noise_alpha = 5.0
    plain = embeddings(batch.input_ids)
    torch.manual_seed(0)
    expected = neftune_post_forward_hook(embeddings, (), plain.clone())
    torch.manual_seed(0)
    with noisy_embeddings(model, batch, 5.0):
        noisy = embeddings(batch.input_ids)
    torch.testing.assert_close(noisy, expected)
    assert torch.equal(embeddings(batch.input_ids), plain)  # none left behind
    assert not torch.equal(noisy, plain)


def test_noise_of_a_document_depends_on_its_length_only(model_of: ModelOf) -> None:
    from lit_sft.models.embedding_noise import noisy_embeddings

    model, _ = model_of("qwen2", "full")
    examples = [each for seed in range(4) for each in random_examples(seed)]
    embeddings = causal_lm(model).get_input_embeddings()
    found = {}
    for layout in ("packed", "padded"):
        batch = collate(examples, mask=MASKS["whole_sequence"], **LAYOUTS[layout])
        torch.manual_seed(0)
        with noisy_embeddings(model, batch, 3.0):
            noise = embeddings(batch.input_ids) - embeddings.weight[batch.input_ids]
        rows = noise[0].split(list(batch.lengths)) if layout == "packed" else noise
        found[layout] = [row[: len(example)] for row, example in zip(rows, examples, strict=True)]
        if layout == "padded":
            assert all(not row[len(example) :].any() for row, example in zip(rows, examples, strict=True))
    for packed, padded in zip(found["packed"], found["padded"], strict=True):
        torch.testing.assert_close(packed, padded)
        most = 3.0 / math.sqrt(packed.numel())
        assert 0.8 * most < float(packed.detach().abs().max()) <= most * (1 + 1e-6)


def test_passes_without_gradients_get_no_noise(model_of: ModelOf) -> None:
    model, _ = model_of("gpt2", "full")
    batch = collate(random_examples(5), mask=MASKS["whole_sequence"])
    with torch.no_grad():
        noisy = objective_of(ObjectiveSettings(neftune_alpha=5.0))(model, batch)
        plain = supervised_loss(model, batch)
    assert torch.equal(noisy[0], plain[0])


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_reference_is_the_model_before_training_and_is_not_part_of_it(model_of: ModelOf, tuning: str) -> None:
    model, base = model_of("gpt2", tuning)
    ids = torch.tensor([[1, 2, 3, 4]])
    with reference_model(model) as reference:
        logits = causal_lm(reference)(ids, use_cache=False).logits
        assert not any(module.training for module in reference.modules())
    assert not logits.requires_grad
    torch.testing.assert_close(logits, base(ids, use_cache=False).logits)
    assert model.training
    assert not torch.allclose(causal_lm(model)(ids, use_cache=False).logits, logits)
    copies = random_model("gpt2", torch.float64) if tuning == "full" else None
    if copies is not None:
        assert model.state_dict().keys() == copies.state_dict().keys()
        assert len(list(model.parameters())) == len(list(copies.parameters()))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_head_that_is_more_than_a_product_gives_the_same(
    model_of: ModelOf, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ObjectiveSettings(**OBJECTIVES[objective])
    batch = collate(random_examples(9), mask=MASKS["whole_sequence"], pack=True)
    results = []
    for tuning in ("full", "lora"):
        model, _ = model_of("llama", tuning)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for is_plain in (True, False):
            monkeypatch.setattr("lit_sft.models.loss._ROWS_AT_ONCE", 13)
            monkeypatch.setattr("lit_sft.models.loss._is_plain", lambda *_, is_plain=is_plain: is_plain)
            torch.manual_seed(0)
            total, nll = objective_of(settings)(model, batch)
            gradients = torch.autograd.grad(total, parameters)
            results.append((total.detach(), nll, torch.cat([gradient.flatten() for gradient in gradients])))
        for one, other in zip(*results[-2:], strict=True):
            torch.testing.assert_close(one, other.to(one.dtype), rtol=1e-4, atol=1e-4)


def test_a_scaled_head_computes_some_rows_at_a_time_without_narrowing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("llama", torch.float64)
    keep_reference(model)
    model.config.logits_scaling = 3.0
    monkeypatch.setattr("lit_sft.models.loss._ROWS_AT_ONCE", 13)
    rows = []
    head = model.get_output_embeddings()
    monkeypatch.setattr(head, "forward", lambda states: (rows.append(len(states)), F.linear(states, head.weight))[1])
    batch = collate(random_examples(9), mask=MASKS["whole_sequence"], pack=True)
    weights = batch.weights.flatten()[batch.targets]
    for settings in ({}, {"name": "dft"}, {"kl_weight": 0.5}):
        total, nll = objective_of(ObjectiveSettings(**settings))(model, batch)  # type: ignore[arg-type]
        assert (total.dtype, nll.dtype) == (torch.float64, torch.float64)
    value, _ = loss_of_nll(model, batch, lambda nll: (nll * weights).sum())
    value.backward()
    assert len(batch.targets) > 26
    assert max(rows) == 13


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", MODELS)
def test_bf16_autocast_is_within_its_own_error_of_float32(name: str, objective: str) -> None:
    settings = ObjectiveSettings(**OBJECTIVES[objective] | ({"threshold": 0.01} if "profit" in objective else {}))
    model = random_model(name, torch.float32)
    keep_reference(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    batch = collate(random_examples(3), mask=MASKS["whole_sequence"], pack=True)
    found = []
    for is_narrow in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_narrow):
            total, _ = objective_of(settings)(model, batch)
        gradients = torch.autograd.grad(total, list(model.parameters()))
        found.append((total.detach(), torch.cat([gradient.flatten() for gradient in gradients])))
    (exact_total, exact), (total, narrow) = found
    spacing = torch.finfo(torch.bfloat16).eps
    assert 0 < float((total - exact_total).abs() / exact_total.abs()) < spacing
    assert 0 < float((narrow - exact).norm() / exact.norm()) < 8 * spacing


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 1.5, "name": "profit"}, r"--model.objective.threshold 1.5: expected a probability"),
        ({"threshold": 0.5}, r"only ProFit has a threshold.*name profit"),
        ({"label_smoothing": 1.0}, r"label_smoothing 1.0: expected at least 0 and below 1"),
        ({"label_smoothing": 0.1, "name": "dft"}, r"label_smoothing 0.1 with .*name dft.*one of the two"),
        ({"kl_weight": -1.0}, r"kl_weight -1.0: expected 0 or more"),
        ({"kl_weight": math.nan}, r"kl_weight nan: expected 0 or more"),
        ({"neftune_alpha": math.inf}, r"neftune_alpha inf: expected 0 or more"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ObjectiveSettings(**settings)


def test_identity_holds_only_what_was_set() -> None:
    assert ObjectiveSettings().identity() == {}
    assert ObjectiveSettings(name="profit", kl_weight=0.1).identity() == {"name": "profit", "kl_weight": 0.1}


def test_next_token_is_the_plain_function() -> None:
    assert objective_of(ObjectiveSettings()) is supervised_loss


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_reference_costs_the_products_that_are_counted(model_of: ModelOf, tuning: str) -> None:
    model, _ = model_of("llama", tuning)
    examples = random_examples(5)
    batch = collate(examples, mask=MASKS["whole_sequence"], pack=True)
    products = []
    for settings in (ObjectiveSettings(), ObjectiveSettings(kl_weight=0.5)):
        with FlopCounterMode(display=False) as counter:
            objective_of(settings)(model, batch)[0].backward()
        counts = counter.get_flop_counts()["Global"]
        products.append(sum(count for name, count in counts.items() if str(name) in ("aten.mm", "aten.addmm")))
    config = causal_lm(model).config
    lengths, targets = [1] * sum(batch.lengths), len(batch.targets)  # each sees itself only
    plain, compared = (model_flops(config, has_reference=has).flops(lengths, targets, "full") for has in (False, True))
    scores = 4 * model_flops(config).scores * len(lengths)
    assert products[1] - products[0] == compared - plain - scores
