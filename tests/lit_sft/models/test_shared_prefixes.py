from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from data_modules.batching.batch import Batch, collate
from data_modules.encoding.example import Example
from data_modules.rendering.masking import MASKS, resolve_mask
from data_modules.rendering.segments import SegmentKind
from lit_sft.metrics.segments import SegmentMetrics
from lit_sft.models import attention, loss
from lit_sft.models.adapters import LoraSettings, with_adapters
from lit_sft.models.attention import SharedDocuments, shares_prefixes, use_document_attention
from lit_sft.models.loss import supervised_loss, token_nll
from lit_sft.models.tree_attention import Stretches, attend_on_cpu, gathered, key_groups
from tests.conftest import MODELS
from tests.random_trees import random_examples

EXACT = {torch.float64: 1e-10, torch.float32: 1e-6}
SEEDS = strategies.integers(0, 2**32 - 1)


def random_model(name: str, dtype: torch.dtype, **changes: object) -> PreTrainedModel:
    torch.manual_seed(0)
    values = {key: value for key, value in MODELS[name].items() if key != "model_type"} | changes
    config = AutoConfig.for_model(MODELS[name]["model_type"], vocab_size=7, pad_token_id=None, **values)
    for dropout in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
        if hasattr(config, dropout) and dropout not in changes:
            setattr(config, dropout, 0.0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).to(dtype)
    use_document_attention(model)
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):  # transformers rounds to float32 inside, whatever the weights are
            module.forward = partial(_rms_norm, module)
    return model.train()


def _rms_norm(module: Any, states: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.rms_norm(states, module.weight.shape, module.weight, module.variance_epsilon)


@pytest.fixture(scope="module")
def model_of() -> Callable[[str, torch.dtype], PreTrainedModel]:
    models = {(name, dtype): random_model(name, dtype) for name in MODELS for dtype in EXACT}
    return lambda name, dtype: models[name, dtype]


def results(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
    total, nll = supervised_loss(model, batch)
    return total.detach(), nll, torch.autograd.grad(total, [p for p in model.parameters() if p.requires_grad])


def check_equal(
    model: PreTrainedModel, examples: list[Example], mask: str, reduction: str, weight: float | None
) -> None:
    exact = EXACT[model.dtype]
    given = {"mask": resolve_mask(mask, weight), "reduction": reduction}
    batches = [collate(examples, **given, **layout) for layout in (
        {"pack": True, "share_prefixes": True}, {"pack": True}, {"pack": False})]  # fmt: skip
    shared, *others = [results(model, batch) for batch in batches]
    scale = max(float(batches[0].normaliser), 1.0)
    for other in others:
        torch.testing.assert_close(shared[0] / scale, other[0] / scale, rtol=0, atol=exact)
        torch.testing.assert_close(shared[1], other[1], rtol=0, atol=10 * exact)
        for ours, theirs in zip(shared[2], other[2], strict=True):
            torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=exact)


@pytest.mark.parametrize("dtype", EXACT, ids=str)
@pytest.mark.parametrize("name", MODELS)
@hypothesis.given(
    seed=SEEDS,
    mask=strategies.sampled_from(sorted(MASKS)),
    reduction=strategies.sampled_from(["token", "sample", "turn"]),
    weight=strategies.sampled_from([None, 0.1, 1.0]),
)
@hypothesis.settings(max_examples=12, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_shared_packed_and_padded_rows_give_the_same_loss_nll_and_gradients(
    model_of: Callable[[str, torch.dtype], PreTrainedModel],
    name: str,
    dtype: torch.dtype,
    seed: int,
    mask: str,
    reduction: str,
    weight: float | None,
) -> None:
    check_equal(model_of(name, dtype), random_examples(seed), mask, reduction, weight)


def trunk_and_branches(*branches: list[int]) -> list[Example]:
    """Examples with one prompt, each with its own answer."""
    trunk = [1, 2, 3, 4, 5, 6, 1, 2, 3, 4]
    return [
        Example(
            np.array(trunk + branch, dtype=np.int32),
            np.repeat((SegmentKind.USER, SegmentKind.FINAL_ANSWER), (len(trunk), len(branch))).astype(np.uint8),
            np.repeat((0, 1), (len(trunk), len(branch))).astype(np.int16),
            origin=f"file:{number}",
        )
        for number, branch in enumerate(branches)
    ]


def shared(examples: list[Example], **settings: object) -> Batch:
    batch = collate(examples, mask=MASKS["output_only"], pack=True, share_prefixes=True, **settings)  # type: ignore[arg-type]
    assert batch.tree is not None
    return batch


def test_the_first_token_of_every_branch_is_supervised(model_of: Callable[..., PreTrainedModel]) -> None:
    """It is predicted by the last state of the shared beginning, where an answer begins at the border."""
    model = model_of("qwen2", torch.float64)
    batch = shared(trunk_and_branches([1], [2], [3, 5]))
    assert batch.tree.lengths == (10, 1, 1, 2)
    total, nll = supervised_loss(model, batch)
    logits = model(torch.tensor([[1, 2, 3, 4, 5, 6, 1, 2, 3, 4]]), use_cache=False).logits[0, -1]
    torch.testing.assert_close(nll[:3], -logits.log_softmax(-1)[[1, 2, 3]].detach())
    assert total.item() == pytest.approx(float(nll.sum()))


def test_a_changed_branch_does_not_change_its_neighbour(model_of: Callable[..., PreTrainedModel]) -> None:
    model = model_of("llama", torch.float32)
    before, after = (token_nll(model, shared(trunk_and_branches([1, 2, 1], b, [3, 5]))) for b in ([2, 2], [6, 0]))
    assert torch.equal(before[:3], after[:3])
    assert torch.equal(before[5:], after[5:])
    assert not torch.equal(before[3:5], after[3:5])


def test_metrics_of_every_record_are_those_of_packed_rows(model_of: Callable[..., PreTrainedModel]) -> None:
    model = model_of("gpt2", torch.float64)
    examples = random_examples(14)
    sizes = torch.ones(7, 2, dtype=torch.int64)
    found = []
    for share in (True, False):
        metrics = SegmentMetrics(sizes, end_token_id=6, by_record=True)
        batch = collate(examples, mask=MASKS["whole_sequence"], pack=True, score_all=True, share_prefixes=share)
        assert (batch.tree is not None) == share
        metrics.update(token_nll(model, batch), batch)
        records = {origin: sums.nats + sums.tokens for origin, sums in metrics.take_records().items()}
        found.append((metrics.compute(), records))
    (metrics_shared, records_shared), (metrics_packed, records_packed) = found
    assert metrics_shared == pytest.approx(metrics_packed, abs=1e-5)
    assert records_shared.keys() == records_packed.keys()
    for origin, sums in records_shared.items():
        assert sums == pytest.approx(records_packed[origin], abs=1e-5)


def test_lora_with_gradient_checkpointing_gives_the_same_gradients() -> None:
    model = with_adapters(random_model("qwen2", torch.float64), LoraSettings(rank=2))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    examples = random_examples(3)
    plain, tree = (collate(examples, mask=MASKS["whole_sequence"], pack=True, share_prefixes=s) for s in (False, True))
    assert tree.tree is not None
    expected = results(model, plain)
    model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    model.get_base_model().enable_input_require_grads()
    for ours, theirs in zip(results(model, tree)[2], expected[2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_rows_that_share_prefixes_but_have_no_targets_give_a_loss_of_zero_with_gradients(name: str) -> None:
    batch = collate(random_examples(3), mask=MASKS["output_only"], pack=True, share_prefixes=True, counts=False)
    assert batch.tree is not None
    total, nll, grads = results(random_model(name, torch.float32), batch)
    assert total.item() == 0.0
    assert nll.shape == (0,)
    assert not any(grad.any() for grad in grads)


@pytest.mark.parametrize("name", MODELS)
def test_under_autocast_shared_rows_are_as_exact_as_packed_ones(name: str) -> None:
    model = random_model(name, torch.float32)
    examples = random_examples(3)
    exact, packed, tree = (
        collate(examples, mask=MASKS["whole_sequence"], pack=True, share_prefixes=s) for s in (False, False, True)
    )
    truth = results(model, exact)
    with torch.autocast("cpu", torch.bfloat16):
        errors = [
            [float((a - b).norm()) for a, b in zip(results(model, batch)[2], truth[2], strict=True)]
            for batch in (packed, tree)
        ]
    assert max(errors[0]) > 0
    assert sum(errors[1]) < 1.2 * sum(errors[0])


@pytest.mark.parametrize(
    ("name", "dropout"), [("gpt2", "resid_pdrop"), ("gpt2", "attn_pdrop"), ("qwen2", "attention_dropout")]
)
def test_dropout_computes_every_document_on_its_own(name: str, dropout: str) -> None:
    model = random_model(name, torch.float32, **{dropout: 0.1})
    assert not shares_prefixes(model)
    assert shares_prefixes(model.eval())
    model.train()
    examples = trunk_and_branches([1, 2], [2], [3, 5])
    torch.manual_seed(1)
    with_tree = supervised_loss(model, shared(examples))
    torch.manual_seed(1)
    without = supervised_loss(model, collate(examples, mask=MASKS["output_only"], pack=True))
    assert torch.equal(with_tree[0], without[0])


def test_other_attention_ignores_the_tree() -> None:
    model = random_model("qwen2", torch.float64)
    batch = shared(trunk_and_branches([1, 2], [2], [3, 5]))
    expected = token_nll(model, batch)
    model.set_attn_implementation("eager")
    assert not shares_prefixes(model)
    # the library's own softmax is computed in float32
    torch.testing.assert_close(token_nll(model, batch), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("full_layers", [0, 1])
def test_a_sliding_window_reaches_from_a_branch_into_the_shared_beginning(full_layers: int) -> None:
    window = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": full_layers}
    model = random_model("qwen2", torch.float64, **window)
    examples = trunk_and_branches([1, 2], [2, 1, 1, 4, 5, 6, 1], [3, 5])
    check_equal(model, examples, "whole_sequence", "token", None)


DEEP = Stretches((3, 2, 1, 4, 1, 2, 3), (-1, 0, 1, 1, 3, 0, -1))
SHORT_BEGINNINGS = Stretches((2, 3, 20, 20, 70, 4, 30, 30, 5), (-1, 0, 1, 1, 0, 4, 5, 5, 4))


def check_attention(attend: Callable[..., torch.Tensor], key_heads: int, tree: Stretches = DEEP) -> None:
    """Compare output and gradients with those under a dense mask."""
    generator = torch.Generator().manual_seed(0)
    given = [
        torch.randn(1, heads, tree.starts[-1], 8, generator=generator, dtype=torch.float64).requires_grad_()
        for heads in (4, key_heads, key_heads)
    ]
    output = attend(*given)
    mask = tree.visible(output.device, None)
    expected = torch.nn.functional.scaled_dot_product_attention(*given, attn_mask=mask, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(output, expected)
    for ours, theirs in zip(
        torch.autograd.grad(output.square().sum(), given),
        torch.autograd.grad(expected.square().sum(), given),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("tree", [DEEP, SHORT_BEGINNINGS])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_attention_along_a_deep_tree_equals_a_dense_mask(key_heads: int, tree: Stretches) -> None:
    check_attention(lambda query, key, value: attend_on_cpu(query, key, value, tree, 0.3), key_heads, tree)


def test_short_beginnings_are_repeated_before_what_follows_them() -> None:
    """Lengths of the repeated pieces of each call and of its queries; a long stretch takes a call without a mask."""
    parts = SHORT_BEGINNINGS.parts
    lengths = [[piece.stop - piece.start for piece in (*part.repeated, part.queries)] for part in parts]
    assert lengths == [[2], [2, 3], [2, 3, 20], [2, 3, 20], [2, 70], [2, 69], [4], [4, 30], [4, 30], [5]]
    assert [index for index, part in enumerate(parts) if not part.is_causal] == [5]


def test_beginnings_of_many_short_branches_and_long_ones_are_not_repeated() -> None:
    for tree in (Stretches((20, *[10] * 50), (-1, *[0] * 50)), Stretches((65, 500, 500), (-1, 0, 0))):
        assert not any(part.repeated for part in tree.parts)


def flash_of_a_gpu(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, query_bounds: torch.Tensor,
    key_bounds: torch.Tensor, most_queries: int, most_keys: int, scaling: float,
) -> torch.Tensor:  # fmt: skip
    """What variable-length flash attention computes: in each sequence, the last query sees every key."""
    parts = []
    for queries, keys in zip(pairwise(query_bounds.tolist()), pairwise(key_bounds.tolist()), strict=True):
        q, k, v = query[slice(*queries)], key[slice(*keys)], value[slice(*keys)]
        assert len(q) <= most_queries
        assert len(k) <= most_keys
        unseen = torch.ones(len(q), len(k), dtype=torch.bool).triu(len(k) - len(q) + 1)
        scores = torch.einsum("qhd,khd->hqk", q, k) * scaling
        parts.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(unseen, -torch.inf).softmax(-1), v))
    return torch.cat(parts).unsqueeze(0)


@pytest.mark.parametrize("stored", [0, 9])
@pytest.mark.parametrize(("most", "groups"), [(1, 7), (11, 5), (99, 1)])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_every_stretch_is_given_all_keys_of_its_documents(
    key_heads: int, most: int, groups: int, stored: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether their keys are gathered in one piece or in several, and stored or gathered again."""
    monkeypatch.setattr(attention, "_flash", flash_of_a_gpu)
    monkeypatch.setattr(attention, "_KEYS_TO_STORE", stored)
    documents = SharedDocuments(DEEP, key_groups(DEEP, torch.device("cpu"), most))
    assert len(documents.groups) == groups
    check_attention(lambda q, k, v: attention._variable_keys(q, k, v, documents, 0.3), key_heads)


def test_a_gpu_holds_and_stores_a_bounded_number_of_keys_of_a_beginning_with_many_branches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """200 branches of a beginning of 2,000 tokens have 404,000 keys."""
    held: list[int] = []
    monkeypatch.setattr(attention, "_flash", lambda q, k, *_: held.append(len(k)) or q.unsqueeze(0) * k.mean())
    tree = Stretches((2000, *[10] * 200), (-1, *[0] * 200))
    documents = SharedDocuments(tree, key_groups(tree, torch.device("cpu"), attention._KEYS_AT_ONCE))
    q, k, v = (torch.randn(1, 1, 4000, 2, requires_grad=True) for _ in range(3))
    stored: set[tuple[int, int]] = set()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        stored.add((tensor.data_ptr(), tensor.numel()))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = attention._variable_keys(q, k, v, documents, 0.3)
    assert sum(held) == 404_000
    assert max(held) <= attention._KEYS_AT_ONCE
    assert sum(size for _, size in stored) <= 3 * 4000 * 2  # queries, keys and values, once
    output.sum().backward()
    assert sum(held) == 2 * 404_000
    assert k.grad is not None


@pytest.mark.parametrize("stored", [0, 9])
def test_gradients_of_a_beginning_are_summed_in_float32_over_all_groups(
    stored: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16, 1 more does not change a sum of 256."""
    monkeypatch.setattr(attention, "_flash", lambda q, k, v, *_: (q.sum() * 0 + v.sum(0)).expand_as(q).unsqueeze(0))
    monkeypatch.setattr(attention, "_KEYS_TO_STORE", stored)
    tree = Stretches((1, *[1] * 600), (-1, *[0] * 600))
    documents = SharedDocuments(tree, key_groups(tree, torch.device("cpu"), most=2))
    q, k, v = (torch.ones(1, 1, 601, 1, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    attention._variable_keys(q, k, v, documents, 1.0).sum().backward()
    assert v.grad.flatten()[0] == torch.tensor(601, dtype=torch.bfloat16)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("checkpoints", [False, True])
def test_a_model_on_a_gpu_has_the_same_gradients_as_on_a_cpu(
    name: str, checkpoints: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(name, torch.float64)
    batch = collate(random_examples(3), mask=MASKS["whole_sequence"], pack=True, share_prefixes=True)
    assert batch.tree is not None
    expected = results(model, batch)
    monkeypatch.setattr(attention, "_flash", flash_of_a_gpu)
    monkeypatch.setattr(attention, "_KEYS_TO_STORE", 0)
    monkeypatch.setattr(
        attention, "_along_tree", lambda q, k, v, d, scaling, *_: attention._variable_keys(q, k, v, d, scaling)
    )
    monkeypatch.setattr(
        loss, "shared_documents", lambda tree, device: SharedDocuments(tree, key_groups(tree, device, most=20))
    )
    if checkpoints:
        model.activation_checkpointing_enable({"use_reentrant": False})
    found = results(model, batch)
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-10)
    for ours, theirs in zip(found[2], expected[2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("window", [None, 5])
def test_layers_share_a_dense_mask(window: int | None) -> None:
    tree = Stretches((4, 3, 2), (-1, 0, 0))
    seen = tree.visible(torch.device("cpu"), window)
    assert seen is tree.visible(torch.device("cpu"), window)
    # positions 0 1 2 3, 4 5 6, 4 5
    assert seen[6].tolist() == [window is None, window is None, True, True, True, True, True, False, False]
    assert seen[8].tolist() == [window is None, True, True, True, False, False, False, True, True]


def test_gradients_of_shared_keys_are_summed_in_float32() -> None:
    """In bfloat16, 1 more does not change a sum of 256."""
    keys = torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)
    places = torch.tensor([1] + [0] * 1024)
    rows = gathered(keys, places)
    assert torch.equal(rows, torch.ones(1025, 3, dtype=torch.bfloat16))
    (grad,) = torch.autograd.grad(rows.sum(), keys)
    assert grad.tolist() == [[1024.0] * 3, [1.0] * 3]
