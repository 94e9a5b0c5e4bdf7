#!/usr/bin/env python3
"""Time the attention of one layer on a CPU by document length: gradients from torch's kernel, or in blocks in bf16.

    python benchmarks/attention.py [--heads 9] [--key-heads 3] [--width 64] [--threads 1]

Forward and backward pass, in processor milliseconds, the fastest of several runs of each in turns. The errors are those
of the gradients of queries, keys and values together, relative to float64, next to those of torch's own attention in
bf16.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).parents[1])

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_sft.models.attention_gradients import LONG, MULTIPLIES_BF16
from lit_sft.models.tree_attention import Stretches, attend_on_cpu


def main() -> None:
    """Print a table."""
    options = arguments()
    torch.set_num_threads(options.threads)
    if not MULTIPLIES_BF16:
        print("this CPU has no bf16 products (avx512_bf16): training uses torch's kernel", file=sys.stderr)
    if min(options.lengths) < LONG:
        sys.exit(f"--lengths {min(options.lengths)}: blocks are used from {LONG} tokens")
    print("| tokens | kernel, ms | blocks, ms | ratio | error of blocks | error of attention in bf16 |")
    print("|---:|---:|---:|---:|---:|---:|")
    for length in options.lengths:
        tensors = drawn(length, options.heads, options.key_heads, options.width)
        kernel, blocks = timed(tensors, options.rounds)
        ours, usual = (f"{error:.2%}" for error in errors(tensors))
        print(f"| {length:,} | {kernel:.1f} | {blocks:.1f} | {blocks / kernel:.2f} | {ours} | {usual} |", flush=True)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=9)
    parser.add_argument("--key-heads", type=int, default=3)
    parser.add_argument("--width", type=int, default=64, help="of a head")
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 384, 512, 1024, 2048], help="tokens")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def drawn(length: int, heads: int, key_heads: int, width: int) -> list[Tensor]:
    """Query, key, value and the gradient of the output, laid out as in a model; values and gradient exact in bf16."""
    torch.manual_seed(0)
    query, key, value, grad = (torch.randn(1, length, h, width) for h in (heads, key_heads, key_heads, heads))
    return [tensor.transpose(1, 2) for tensor in (query, key, value.bfloat16().float(), grad.bfloat16().float())]


def timed(tensors: list[Tensor], rounds: int) -> tuple[float, float]:
    """Milliseconds of forward and backward pass with torch's kernel, and in blocks."""
    best = [float("inf")] * 2
    for _ in range(rounds):
        for index, is_bf16 in enumerate((False, True)):
            start = time.process_time()
            gradients(tensors, is_bf16=is_bf16)
            best[index] = min(best[index], 1000 * (time.process_time() - start))
    return best[0], best[1]


def gradients(tensors: list[Tensor], *, is_bf16: bool) -> tuple[Tensor, ...]:
    """Those of query, key and value."""
    *inputs, grad = tensors
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    stretches = Stretches((grad.shape[2],), (-1,))
    return torch.autograd.grad(attend_on_cpu(*inputs, stretches, None, is_bf16=is_bf16), inputs, grad)


def errors(tensors: list[Tensor]) -> tuple[float, float]:
    """Relative errors of the gradients in blocks, and of torch's attention in bf16."""
    results = []
    for dtype in (torch.float64, torch.bfloat16):
        *inputs, grad = (tensor.to(dtype) for tensor in tensors)
        inputs = [tensor.requires_grad_() for tensor in inputs]
        output = F.scaled_dot_product_attention(*inputs, is_causal=True, enable_gqa=True)
        results.append(_joined(torch.autograd.grad(output, inputs, grad)))
    exact, usual = results
    ours = _joined(gradients(tensors, is_bf16=True))
    return tuple(float((found - exact).norm() / exact.norm()) for found in (ours, usual))  # type: ignore[return-value]


def _joined(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors])


if __name__ == "__main__":
    main()
