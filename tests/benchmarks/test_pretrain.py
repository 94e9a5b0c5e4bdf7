"""Our training against a plain PyTorch loop: the same weights, blocks, optimiser, schedule, clipping, accumulation."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.plain_loop import Recipe
from benchmarks.pretrain import (
    GATED,
    Alternation,
    arguments,
    check_losses,
    flops_per_token,
    measure,
    recipe_of,
    settings_of_config,
    table,
    train,
)
from data_modules.text_data_module import TextDataModule
from lit_sft.models.adapters import causal_lm
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.training.module import LitCausalLM
from lit_sft.training.optimization import OptimizerSettings
from tests.conftest import MODELS, byte_tokenizer

ROOT = Path(__file__).parents[2]
OPTIMIZER = OptimizerSettings(
    lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1, schedule="cosine", warmup_steps=2, min_lr_ratio=0.1
)


def text(folder: Path, count: int) -> str:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefg", k=draw.randint(1, 7))) for _ in range(200)]
    rows = [{"text": " ".join(draw.choices(words, k=draw.randint(20, 60)))} for _ in range(count)]
    path = folder / "text.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def run(
    folder: Path, config: dict[str, Any], optimizer: OptimizerSettings, *, steps: int, clip: float | None, block: int,
    batch: int, multiple: int | None = None,
) -> tuple[Alternation, LitCausalLM, list[torch.Tensor]]:  # fmt: skip
    """Train in turns; each step has `batch` blocks in three or more forward passes."""
    data = TextDataModule(
        text(folder, 200), tokenizer=byte_tokenizer(), val_fraction=0.0, test_fraction=0.0, block_size=block,
        document_attention="across", token_budget=block * (batch // 3), batch_size=batch, seed=1,
    )  # fmt: skip
    alternation = Alternation(recipe_of(optimizer, steps, clip=clip), "cpu")
    first: list[torch.Tensor] = []

    class Start(Alternation):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            first.extend(p.detach().clone() for p in pl_module.backbone.parameters())
            super().on_train_start(trainer, pl_module)

    alternation.__class__ = Start
    backbone = BackboneSettings(config=config, pad_vocab_to_multiple_of=multiple)
    return alternation, train(backbone, optimizer, data, alternation, folder), first


def assert_equal(alternation: Alternation, module: LitCausalLM, first: list[torch.Tensor]) -> None:
    for found in alternation.rounds:
        assert found["lit_sft"]["loss"] == pytest.approx(found["plain"]["loss"], rel=1e-5)
    for found in alternation.rounds[:GATED]:
        assert found["lit_sft"]["norm"] == pytest.approx(found["plain"]["norm"], rel=1e-4)
    pairs = zip(module.backbone.parameters(), alternation.loops["plain"].model.parameters(), first, strict=True)
    changes = [(ours.detach() - before, theirs.detach() - before) for ours, theirs, before in pairs]
    ours, theirs = (torch.cat([change[index].flatten() for change in changes]) for index in (0, 1))
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-3


@pytest.mark.parametrize("name", list(MODELS))
def test_first_steps_equal_those_of_a_plain_loop(name: str, tmp_path: Path) -> None:
    alternation, module, first = run(tmp_path, MODELS[name], OPTIMIZER, steps=4, clip=0.5, block=48, batch=7)
    assert len(alternation.rounds) == 4
    norms = [found["plain"]["norm"] for found in alternation.rounds]
    assert min(norms) > 0.5  # every step is clipped
    assert_equal(alternation, module, first)


@pytest.mark.slow
def test_first_steps_of_gpt2_124m_equal_those_of_a_plain_loop(tmp_path: Path) -> None:
    optimizer, clip = settings_of_config()
    config = {"model_type": "gpt2", "activation_function": "gelu_pytorch_tanh"}
    given = {"steps": 3, "clip": clip, "block": 64, "batch": 6, "multiple": 50304}
    alternation, module, first = run(tmp_path, config, optimizer, **given)  # type: ignore[arg-type]
    assert sum(p.numel() for p in module.backbone.parameters()) == 124_475_904
    assert alternation.rounds[0]["lit_sft"]["loss"] == pytest.approx(math.log(50304), rel=0.02)
    assert_equal(alternation, module, first)


def test_schedule_is_that_of_nanogpt() -> None:
    settings, clip = settings_of_config()
    recipe = recipe_of(settings, 19073, clip=clip)
    assert (recipe.warmup_steps, recipe.clip, recipe.weight_decay) == (715, 1.0, 0.1)
    # the formula of nanoGPT's train.py and of llm.c
    middle = 6e-5 + 0.5 * (1 + math.cos(math.pi * (10000 - 715) / (19073 - 715))) * (6e-4 - 6e-5)
    assert [recipe.lr_at(step) for step in (0, 714, 10000, 19073)] == pytest.approx([6e-4 / 715, 6e-4, middle, 6e-5])


def test_benchmark_runs_and_reports(tmp_path: Path) -> None:
    sizes = ["--tokens", "256", "--block-size", "64", "--micro-batch", "128", "--steps", "2", "--threads", "1"]
    tokenizer = ["--tokenizer", str(ROOT / "examples" / "tokenizer")]
    options = arguments(["--shape", "tiny", "--layers", "1", *sizes, *tokenizer])
    result = measure(options, tmp_path)
    assert len(result["rounds"]) == 5
    written = table(json.loads(json.dumps(result)))
    assert "| lit_sft |" in written
    assert "| plain |" in written
    assert "256 tokens a step in blocks of 64, 128 tokens a forward pass, 2 steps each" in written


def test_different_losses_stop_the_benchmark() -> None:
    same, other = {"lit_sft": {"loss": 2.0}, "plain": {"loss": 2.0}}, {"lit_sft": {"loss": 2.0}, "plain": {"loss": 2.1}}
    check_losses([same, same, same, other], 1e-5)  # later steps differ by rounding
    with pytest.raises(SystemExit, match=r"step 3: the loss of plain is 2\.1000000, that of lit_sft 2\.0000000"):
        check_losses([same, same, other], 1e-5)


def test_operations_per_token_are_those_of_palm() -> None:
    model = causal_lm(build_backbone(BackboneSettings(config=MODELS["gpt2"]), byte_tokenizer()))
    layer = 32 * 96 + 96 + 32 * 32 + 32 + 2 * 32 * 128 + 128 + 32 + 4 * 32
    expected = 6 * (259 * 32 + 2 * layer + 2 * 32) + 12 * 2 * 32 * 100
    assert flops_per_token(model, 100) == expected


def test_recipe_without_warm_up_starts_at_the_peak() -> None:
    recipe = Recipe(1.0, 0.1, 0, 10, 0.0, (0.9, 0.95), 1e-8, None)
    assert [recipe.lr_at(step) for step in (0, 5, 10, 20)] == pytest.approx([1.0, 0.55, 0.1, 0.1])
