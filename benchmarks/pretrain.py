#!/usr/bin/env python3
"""Compare pretraining with lit_sft and with a plain PyTorch loop, on the same weights and blocks, in alternating steps.

    python benchmarks/pretrain.py
    python benchmarks/pretrain.py --device cuda

Both train a model with random weights in one process: Lightning's Trainer takes an optimiser step, then each plain loop
(`plain_loop.py`) takes the same step on the same blocks. The order is lit_sft, plain, lit_sft, plain ..., so that
drifting machine speed affects both. The losses of the first three steps must agree, to a relative 1e-5 in float32 or
2e-2 in bf16. Optimiser and clipping are those of configs/pretrain/gpt2_124m.yaml. A step of lit_sft is timed from the
end of the plain step before it, so it includes the batch, the schedule and all of the trainer's own work.

On a GPU, a second plain loop is compiled as a whole, and lit_sft compiles its layers (`--no-compile`: neither).

The report shows tokens per second, the ratio of lit_sft to each loop (median, lowest and highest of single steps) in
elapsed time, and on a CPU also in processor time, which other programs on the machine affect less; and the model FLOP/s
utilisation: 6 N + 12 L H Q T operations per token (Chowdhery et al. 2022, appendix B; as in nanoGPT), divided by the
peak rate of the GPU, or by the rate of a matrix product measured here. Writes `pretrain.json` and `pretrain.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).parents[1])  # not this folder, whose cuda.py could shadow a library's

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from transformers import PreTrainedModel

from benchmarks.plain_loop import PlainLoop, Recipe
from benchmarks.runner import TOLERANCE
from benchmarks.shapes import SHAPES, matrix_product_flops, wait_for
from data_modules.batching.batch import Batch
from data_modules.text_data_module import TextDataModule
from lit_sft.models.adapters import causal_lm
from lit_sft.models.backbone import BackboneSettings
from lit_sft.models.flops import model_flops, peak_flops
from lit_sft.training.module import LitCausalLM
from lit_sft.training.optimization import OptimizerSettings

CONFIG = Path(__file__).parents[1] / "configs" / "pretrain" / "gpt2_124m.yaml"
"""The config whose optimiser and clipping are measured."""

WARM_UP = 3
"""Steps that are not timed."""

GATED = 3
"""Steps whose losses must agree; after more, rounding grows."""


def main() -> None:
    """Measure, and print a table."""
    options = arguments()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA GPU here; leave out `--device cuda` to measure on the CPU.")
    torch.set_num_threads(options.threads)
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    result = measure(options, output)
    (output / "pretrain.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    text = table(result)
    (output / "pretrain.md").write_text(text, encoding="utf-8")
    print(text)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, with defaults that fit the device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", nargs="+", help="text files; default: documents of made-up words")
    parser.add_argument("--tokenizer", default="examples/tokenizer")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="gpt2")
    parser.add_argument("--layers", type=int, help="number of layers; default: all of the shape's")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("bf16", "float32"), help="default: bf16 on a GPU, float32 on a CPU")
    parser.add_argument("--block-size", type=int, help="default: 1024 on a GPU, 256 on a CPU")
    parser.add_argument("--tokens", type=int, help="tokens per step; default: 2^19 on a GPU, 1024 on a CPU")
    parser.add_argument(
        "--micro-batch", type=int, help="tokens per forward pass; default: 65536 on a GPU, 512 on a CPU"
    )
    parser.add_argument("--steps", type=int, default=7, help="timed steps, after three warm-up steps")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="default: on a GPU only")
    parser.add_argument(
        "--peak-tflops",
        type=float,
        help="peak rate of the GPU; default: that of its data sheet, if known, else measured",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", default="runs/benchmark-pretrain", help="folder for the report")
    options = parser.parse_args(given)
    on_gpu = options.device == "cuda"
    usual = {"precision": "bf16", "block_size": 1024, "tokens": 2**19, "micro_batch": 65536, "compile": True}
    small = {"precision": "float32", "block_size": 256, "tokens": 1024, "micro_batch": 512, "compile": False}
    for name, value in (usual if on_gpu else small).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


class Alternation(Callback):
    """Runs the same step in each plain loop after every step of lit_sft, and times all of them.

    Args:
        recipe: Settings of the loops.
        device: `cpu` or `cuda`.
        compiled: Whether to add a compiled loop.
    """

    def __init__(self, recipe: Recipe, device: str, *, compiled: bool = False) -> None:
        self.recipe, self.device, self.compiled = recipe, device, compiled
        self.loops: dict[str, PlainLoop] = {}
        self.rounds: list[dict[str, dict[str, float]]] = []
        self._norm: torch.Tensor | None = None
        self._start = (0.0, 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the weights."""
        assert isinstance(pl_module, LitCausalLM)
        model = causal_lm(pl_module.backbone)
        self.loops["plain"] = PlainLoop(model, self.recipe)
        if self.compiled:
            self.loops["plain, compiled"] = PlainLoop(model, self.recipe, compiled=True)
        self._start = self._clocks()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Keep the norm of the gradient before clipping; only for the first steps, because computing it takes time."""
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self._norm = torch.nn.utils.get_total_norm(gradients) if trainer.global_step < GATED else None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: list[Batch], batch_idx: int
    ) -> None:
        """Take the plain steps."""
        found = {"lit_sft": self._costs() | self._results(outputs["nats"] / outputs["weight"], self._norm)}
        blocks = [micro_batch.input_ids for micro_batch in batch]
        for name, loop in self.loops.items():
            self._start = self._clocks()
            loss, norm = loop.step(blocks)
            found[name] = self._costs() | self._results(loss, norm)
        self.rounds.append(found)
        print(f"step {trainer.global_step}: {found}", file=sys.stderr)
        self._start = self._clocks()

    def _clocks(self) -> tuple[float, float]:
        wait_for(self.device)
        return time.perf_counter(), time.process_time()

    def _costs(self) -> dict[str, float]:
        wall, cpu = self._clocks()
        return {"seconds": wall - self._start[0], "cpu_seconds": cpu - self._start[1]}

    @staticmethod
    def _results(loss: torch.Tensor, norm: torch.Tensor | None) -> dict[str, float]:
        return {"loss": float(loss)} | ({} if norm is None else {"norm": float(norm)})


def train(
    backbone: BackboneSettings,
    optimizer: OptimizerSettings,
    data: TextDataModule,
    alternation: Alternation,
    folder: Path,
) -> LitCausalLM:
    """Train in turns with the plain loops, for the steps of their recipe; returns the trained module."""
    recipe = alternation.recipe
    torch.manual_seed(0)
    module = LitCausalLM(backbone, optimizer)
    trainer = Trainer(
        accelerator="gpu" if alternation.device == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if recipe.bf16 else "32-true",
        max_steps=recipe.total_steps,
        gradient_clip_val=recipe.clip,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(folder),
        callbacks=[alternation],
    )
    trainer.fit(module, datamodule=data)
    return module


def recipe_of(optimizer: OptimizerSettings, total_steps: int, *, clip: float | None, bf16: bool = False) -> Recipe:
    """The settings with which a plain loop does the same as AdamW with a cosine schedule in lit_sft."""
    return Recipe(
        lr=optimizer.lr,
        min_lr_ratio=optimizer.min_lr_ratio,
        warmup_steps=optimizer.num_warmup_steps(total_steps),
        total_steps=total_steps,
        weight_decay=optimizer.weight_decay,
        betas=optimizer.betas,
        eps=optimizer.eps,
        clip=clip,
        bf16=bf16,
    )


def settings_of_config() -> tuple[OptimizerSettings, float]:
    """The optimiser and the clipping of `CONFIG`."""
    settings = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    optimizer = dict(settings["model"]["optimizer"])
    clip = float(settings["trainer"]["gradient_clip_val"])
    return OptimizerSettings(**optimizer | {"betas": tuple(optimizer["betas"])}), clip


def make_text(path: Path, num_tokens: int) -> str:
    """Write documents of made-up words, more than `num_tokens` tokens; returns the path."""
    draw = random.Random(0)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(1, 9))) for _ in range(2000)]
    count = num_tokens // 300 + 10
    rows = [{"text": " ".join(draw.choices(words, k=draw.randint(100, 500)))} for _ in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def measure(options: argparse.Namespace, output: Path) -> dict[str, Any]:
    """All metrics, as written to `pretrain.json`."""
    settings = dict(SHAPES[options.shape])
    vocabulary = settings.pop("vocab_size")
    if options.layers is not None:
        settings["n_layer" if options.shape == "gpt2" else "num_hidden_layers"] = options.layers
    if options.shape == "gpt2":
        settings["activation_function"] = "gelu_pytorch_tanh"  # the same function as one kernel
    backbone = BackboneSettings(
        config=settings,
        tokenizer=options.tokenizer,
        compile=options.compile,
        pad_vocab_to_multiple_of=-(-vocabulary // 128) * 128,
    )
    data = TextDataModule(
        options.train or make_text(output / "text.jsonl", options.tokens),
        tokenizer=options.tokenizer,
        val_fraction=0.0,
        test_fraction=0.0,
        block_size=options.block_size,
        document_attention="across",
        token_budget=options.micro_batch,
        batch_size=options.tokens // options.block_size,
        cache_dir=str(output / "cache"),
    )
    optimizer, clip = settings_of_config()
    recipe = recipe_of(optimizer, WARM_UP + options.steps, clip=clip, bf16=options.precision == "bf16")
    alternation = Alternation(recipe, options.device, compiled=options.compile)
    ceilings = [matrix_product_flops(options.precision, options.device)]
    module = train(backbone, optimizer, data, alternation, output)
    ceilings.append(matrix_product_flops(options.precision, options.device))
    check_losses(alternation.rounds, TOLERANCE[options.precision])
    return {
        "settings": vars(options),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "versions": {"torch": torch.__version__},
        "ceiling_flops": ceilings,
        "parameters": sum(p.numel() for p in module.backbone.parameters()),
        "flops_per_token": flops_per_token(causal_lm(module.backbone), options.block_size),
        "rounds": alternation.rounds,
    }


def check_losses(rounds: list[dict[str, dict[str, float]]], tolerance: float) -> None:
    """Stop if the losses of the first steps differ, because then the loops do different work.

    Raises:
        SystemExit: If they do.
    """
    for index, found in enumerate(rounds[:GATED]):
        for name, step in found.items():
            expected = found["lit_sft"]["loss"]
            if not abs(step["loss"] - expected) <= tolerance * expected:
                sys.exit(f"step {index + 1}: the loss of {name} is {step['loss']:.7f}, that of lit_sft {expected:.7f}.")


def flops_per_token(model: PreTrainedModel, block_size: int) -> float:
    """Operations per token by Chowdhery et al. 2022, appendix B: 6 N + 12 L H Q T, N without position embeddings.

    It counts the masked half of the scores, unlike the `train/mfu` of a run, so that figures can be compared with those
    of nanoGPT and llm.c.

    Args:
        model: The model.
        block_size: T, the length of a sequence.
    """
    positions = sum(p.numel() for name, p in model.named_parameters() if name.endswith("wpe.weight"))
    count = sum(p.numel() for p in model.parameters()) - positions
    return float(6 * count + 12 * model_flops(model.config).scores * block_size)


def table(result: dict[str, Any]) -> str:
    """The metrics as Markdown."""
    settings, rounds = result["settings"], result["rounds"][WARM_UP:]
    peak, source = peak_of(result)
    tokens = settings["tokens"] // settings["block_size"] * settings["block_size"]
    own = [found["lit_sft"] for found in rounds]
    lines = [
        f"{settings['shape']}, {result['parameters'] / 1e6:.1f} M weights, {result['device']}, "
        f"{settings['precision']}, {tokens:,} tokens a step in blocks of {settings['block_size']:,}, "
        f"{settings['micro_batch']:,} tokens a forward pass, {len(rounds)} steps each; peak {peak / 1e12:,.2f} TFLOP/s "
        f"({source})",
        "",
        "| | tokens/s | lit_sft is (median, range) | by processor time | model FLOP/s utilisation |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in rounds[0]:
        steps = [found[name] for found in rounds]
        speed = tokens / statistics.median(step["seconds"] for step in steps)
        ratios = ["", ""]
        if name != "lit_sft":
            ratios = [ratio(own, steps, "seconds"), ratio(own, steps, "cpu_seconds")]
        if settings["device"] == "cuda":
            ratios[1] = ""
        share = speed * result["flops_per_token"] / peak
        lines.append(f"| {name} | {speed:,.0f} | {ratios[0]} | {ratios[1]} | {share:.1%} |")
    last = result["rounds"][-1]
    losses = ", ".join(f"{name} {step['loss']:.6f}" for name, step in last.items())
    probes = ", ".join(f"{flops / 1e12:,.3f}" for flops in result["ceiling_flops"])
    lines += ["", f"Loss of the last step: {losses}. Matrix product before and after: {probes} TFLOP/s."]
    return "\n".join(lines) + "\n"


def ratio(own: list[dict[str, float]], other: list[dict[str, float]], clock: str) -> str:
    """How many times as fast lit_sft is, step by step: median and range."""
    ratios = [theirs[clock] / ours[clock] for ours, theirs in zip(own, other, strict=True)]
    return f"{statistics.median(ratios):.3f} x ({min(ratios):.3f} to {max(ratios):.3f})"


def peak_of(result: dict[str, Any]) -> tuple[float, str]:
    """The peak rate to compare with, in FLOP/s, and where it comes from."""
    if given := result["settings"]["peak_tflops"]:
        return given * 1e12, "given"
    known = peak_flops(result["device"]) if result["settings"]["precision"] == "bf16" else None
    return (max(result["ceiling_flops"]), "a matrix product measured here") if known is None else (known, "data sheet")


if __name__ == "__main__":
    main()
