"""Models to measure: a real model's shape with random weights; and the machine's peak rate."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from benchmarks.peers.protocol import LORA_RANK
from lit_sft.models.adapters import LoraSettings
from lit_sft.models.flops import ModelFlops, model_flops

CACHE = Path(os.environ.get("LIT_SFT_CACHE", "~/.cache/lit_sft")).expanduser() / "benchmark"

SHAPES: dict[str, dict[str, Any]] = {
    "qwen2.5-0.5b": {
        "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "rope_theta": 1e6,
        "max_position_embeddings": 32768, "tie_word_embeddings": True,
    },
    "gpt2": {
        "model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024,
        "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
    },
    "tiny": {
        "model_type": "qwen2", "vocab_size": 2048, "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
    },
}  # fmt: skip


def write_shape(name: str, layers: int | None, folder: Path, tokenizer: str) -> Path:
    """Write a model folder with reproducible random float32 weights and a tokenizer whose ids fit.

    Args:
        name: One of `SHAPES`.
        layers: Number of layers. None: all.
        folder: Parent of such folders; an existing one is reused.
        tokenizer: Its folder. The model keeps its own vocabulary size; a smaller head would be too cheap.
    """
    settings = dict(SHAPES[name])
    if layers is not None:
        settings["n_layer" if name == "gpt2" else "num_hidden_layers"] = layers
    target = folder / f"{name}-{layers or 'all'}-layers-{Path(tokenizer).resolve().name}"
    if not (target / "model.safetensors").exists():
        vocabulary = AutoTokenizer.from_pretrained(tokenizer)
        ends = {"bos_token_id": vocabulary.bos_token_id, "eos_token_id": vocabulary.eos_token_id}
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings, **ends), dtype=torch.float32)
        vocabulary.save_pretrained(target)
        model.save_pretrained(target)  # last: marks the folder as complete
    return target


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a model, which `chosen_model` reads."""
    parser.add_argument(
        "--pretrained", help="folder of a model and its tokenizer; default: a model with random weights"
    )
    parser.add_argument("--shape", choices=tuple(SHAPES), default="qwen2.5-0.5b", help="of the random model")
    parser.add_argument("--layers", type=int, default=4, help="of the random model")
    parser.add_argument("--tokenizer", default="examples/tokenizer", help="of the random model")


def chosen_model(options: argparse.Namespace) -> tuple[str, str]:
    """The folders of the model and of its tokenizer; a model with random weights is written if it is missing."""
    if options.pretrained:
        return options.pretrained, options.pretrained
    return str(write_shape(options.shape, options.layers, CACHE, options.tokenizer)), options.tokenizer


def work_of_folder(folder: str | Path) -> ModelFlops:
    """The operations of a model, with the adapters that the contestants train."""
    return model_flops(AutoConfig.from_pretrained(folder), LoraSettings(rank=LORA_RANK))


def matrix_product_flops(precision: str, device: str = "cpu", size: int | None = None) -> float:
    """Floating-point operations per second of a square matrix product: the current limit of this machine.

    Args:
        precision: `bf16` or `float32`.
        device: `cpu` or `cuda`.
        size: Rows and columns of the matrices. None: 2048 on a CPU, 8192 on a GPU.
    """
    size = size or (2048 if device == "cpu" else 8192)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    times = []
    for _ in range(10):
        wait_for(device)
        start = time.perf_counter()
        a @ b
        wait_for(device)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def bf16_is_slow() -> bool:
    """Whether this CPU multiplies in bf16 more slowly than in float32, for lack of instructions."""
    return matrix_product_flops("bf16", size=256) < matrix_product_flops("float32", size=256)


def wait_for(device: str) -> None:
    """Wait until the device has finished."""
    if device == "cuda":
        torch.cuda.synchronize()
