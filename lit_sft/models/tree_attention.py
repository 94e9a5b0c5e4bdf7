"""Causal attention in rows where documents share their beginnings (see data_modules/batching/prefix_tree.py).

A stretch attends to itself, causally, and to all of every stretch before it in its documents. Seen from the keys, all
queries that may see a stretch stand in one piece, its subtree:

    a a a a b b c d      a sees a, causally; b, c and d see a without a mask: two calls, however many branches there are
            └ subtree

So each stretch takes one causal call and, if anything follows it, one call without a mask. Each call gives the
attention to a part of the keys with the logarithm of its normaliser, from which the attention to all of them follows.

With few keys, that second call and the merging cost more than they save. A short stretch is therefore repeated before
each of the stretches that follow it, in their causal calls: a b, a c and a d, of which the outputs of b, c and d are
kept.

Source: partial softmaxes merged by their normalisers, as in FlashAttention and Ring Attention (arXiv 2310.01889); keys
shared by many queries as in Hydragen (arXiv 2402.05099), here with gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from lit_sft.models.attention_gradients import backward_in_blocks, centred, is_long

SHORT = 64
"""Most tokens that are repeated before each stretch that follows them."""


@dataclass(frozen=True, slots=True)
class Part:
    """The queries and keys of one call.

    Attributes:
        queries: In one piece of the row.
        repeated: Short stretches before the keys, as pieces of the row. A causal call repeats them before the queries
            too.
        keys: In one piece of the row; the queries themselves if the call is causal.
        is_causal: Whether query t sees the keys up to t only, counted with the repeated ones; else all.
    """

    queries: slice
    repeated: tuple[slice, ...]
    keys: slice
    is_causal: bool

    @property
    def num_repeated(self) -> int:
        """Repeated tokens."""
        return sum(int(piece.stop - piece.start) for piece in self.repeated)

    @property
    def num_keys(self) -> int:
        """Keys, repeated ones included."""
        return self.num_repeated + int(self.keys.stop - self.keys.start)

    @property
    def num_queries(self) -> int:
        """Queries, repeated ones included."""
        return self.num_keys if self.is_causal else int(self.queries.stop - self.queries.start)

    def of_queries(self, tensor: Tensor) -> Tensor:
        """The queries' rows of (B, heads, C, ...)."""
        return self.of_keys(tensor) if self.is_causal else tensor[:, :, self.queries]

    def of_keys(self, tensor: Tensor) -> Tensor:
        """The keys' rows of (B, heads, C, ...)."""
        own = tensor[:, :, self.keys]
        return torch.cat([*(tensor[:, :, piece] for piece in self.repeated), own], 2) if self.repeated else own

    def add_keys(self, total: Tensor, shares: Tensor) -> None:
        """Add (B, heads, keys, ...) to the keys' rows of (B, heads, C, ...), in place."""
        done = 0
        for piece in (*self.repeated, self.keys):
            size = piece.stop - piece.start
            total[:, :, piece] += shares[:, :, done : done + size]
            done += size

    def without_repeated(self, tensor: Tensor) -> Tensor:
        """The rows of (B, heads, queries, ...) that are kept."""
        return tensor[:, :, self.num_repeated :] if self.is_causal else tensor


@dataclass(frozen=True)
class Stretches:
    """The stretches of a row, on the host.

    Attributes:
        lengths: Tokens in each.
        parents: The stretch before each; -1 for none. Each subtree is one piece of the row.
    """

    lengths: tuple[int, ...]
    parents: tuple[int, ...]
    _masks: dict[tuple[torch.device, int | None], Tensor] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where each stretch begins in the row, and the end of the last."""
        starts = [0]
        for length in self.lengths:
            starts.append(starts[-1] + length)
        return tuple(starts)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Position of each stretch's first token in its documents."""
        offsets: list[int] = []
        for parent in self.parents:
            offsets.append(0 if parent < 0 else offsets[parent] + self.lengths[parent])
        return tuple(offsets)

    @property
    def longest(self) -> int:
        """Tokens in the longest document."""
        return max(map(sum, zip(self.offsets, self.lengths, strict=True)))

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The calls of attention; every query's first comes first."""
        ends = list(self.starts[1:])  # of each subtree
        children = [0] * len(ends)
        for index in range(len(ends) - 1, -1, -1):
            if (parent := self.parents[index]) >= 0:
                ends[parent] = max(ends[parent], ends[index])
                children[parent] += 1
        parts = []
        passed_on: list[tuple[slice, ...]] = []  # what each stretch has repeated before those that follow it
        for index, parent in enumerate(self.parents):
            own = slice(self.starts[index], self.starts[index + 1])
            causal = Part(own, passed_on[parent] if parent >= 0 else (), own, is_causal=True)
            parts.append(causal)
            rest = slice(own.stop, ends[index])
            # no more than a third of the tokens after it may be repeated ones
            is_short = causal.num_keys <= min(SHORT, (rest.stop - rest.start) // (2 * max(children[index], 1)))
            passed_on.append((*causal.repeated, own) if is_short else ())
            if not is_short and rest.stop > rest.start:
                parts.append(Part(rest, causal.repeated, own, is_causal=False))
        return tuple(parts)

    def visible(self, device: torch.device, window: int | None) -> Tensor:
        """Which keys each query sees, (C, C) bool, for devices without anything better. Large, so layers share it."""
        if (device, window) not in self._masks:
            self._masks[device, window] = self._visible(device, window)
        return self._masks[device, window]

    def _visible(self, device: torch.device, window: int | None) -> Tensor:
        size = self.starts[-1]
        seen = torch.zeros(size, size, dtype=torch.bool, device=device)
        for start, length, path in zip(self.starts, self.lengths, self.key_paths(), strict=False):
            own = slice(start, start + length)
            seen[own, path.to(device)] = True
            seen[own, own].tril_()
        if window is not None:
            spans = zip(self.offsets, self.lengths, strict=True)
            positions = torch.cat([torch.arange(offset, offset + length) for offset, length in spans]).to(device)
            seen &= positions[:, None] - positions[None, :] < window
        return seen

    def key_paths(self) -> list[Tensor]:
        """For each stretch, the places in the row of everything that its last token sees, in order."""
        paths: list[Tensor] = []
        for start, length, parent in zip(self.starts, self.lengths, self.parents, strict=False):
            own = torch.arange(start, start + length)
            paths.append(own if parent < 0 else torch.cat([paths[parent], own]))
        return paths


@dataclass(frozen=True, slots=True)
class KeyGroup:
    """Neighbouring stretches whose keys are gathered together, each with the stretches before it, for a GPU.

    Attributes:
        queries: Their tokens in the row.
        places: Their keys, as places in the row, (K,) int64.
        query_bounds: Where each stretch begins among these tokens, and the end of the last, (stretches + 1,) int32.
        key_bounds: Where the keys of each begin, and the end of the last, (stretches + 1,) int32.
        most_queries: Tokens in the longest stretch.
        most_keys: Keys of the stretch that has most.
    """

    queries: slice
    places: Tensor
    query_bounds: Tensor
    key_bounds: Tensor
    most_queries: int
    most_keys: int


def key_groups(stretches: Stretches, device: torch.device, most: int) -> tuple[KeyGroup, ...]:
    """Divide the stretches of a row into groups of at most `most` keys, unless a group is a single stretch."""
    paths = stretches.key_paths()
    firsts, total = [0], 0
    for index, path in enumerate(paths):
        if index and total + len(path) > most:
            firsts.append(index)
            total = 0
        total += len(path)
    return tuple(_key_group(stretches, paths, *ends, device) for ends in pairwise([*firsts, len(paths)]))


def _key_group(stretches: Stretches, paths: list[Tensor], first: int, last: int, device: torch.device) -> KeyGroup:
    num_queries, num_keys = stretches.lengths[first:last], list(map(len, paths[first:last]))
    query_bounds, key_bounds = (
        torch.tensor([0, *accumulate(sizes)], dtype=torch.int32, device=device) for sizes in (num_queries, num_keys)
    )
    queries = slice(stretches.starts[first], stretches.starts[last])
    places = torch.cat(paths[first:last]).to(device)
    return KeyGroup(queries, places, query_bounds, key_bounds, max(num_queries), max(num_keys))


def attend_on_cpu(
    query: Tensor, key: Tensor, value: Tensor, stretches: Stretches, scaling: float | None, *, is_bf16: bool = False
) -> Tensor:
    """Attention of every token to those before it in its documents, on a CPU.

    Args:
        query: (B, heads, C, width), float32 or float64.
        key: (B, key heads, C, width).
        value: (B, key heads, C, width).
        stretches: The stretches of a row.
        scaling: Factor of the scores. None: one over the square root of the width.
        is_bf16: Compute the gradients of long stretches with products in bf16. The values must be exact in it.

    Returns:
        (B, heads, C, width).
    """
    output: Tensor = _TreeAttention.apply(query, key, value, stretches, scaling, is_bf16)  # type: ignore[no-untyped-call]
    return output


class _TreeAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, stretches: Stretches, scaling: float | None, is_bf16: bool
    ) -> Tensor:
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        output = torch.empty_like(query)
        normaliser = query.new_empty(query.shape[:3])
        done = 0  # tokens that have been written; further calls are merged
        for part in stretches.parts:
            tensors = part.of_queries(query), part.of_keys(key), part.of_keys(value)
            found, total = map(part.without_repeated, flash(*tensors, 0.0, part.is_causal, scale=scaling))
            queries = part.queries
            old = slice(queries.start, min(queries.stop, done))
            num_old = max(0, old.stop - old.start)
            if num_old:
                _merge(output[:, :, old], normaliser[:, :, old], found[:, :, :num_old], total[:, :, :num_old])
            if queries.stop > done:
                new = slice(queries.start + num_old, queries.stop)
                output[:, :, new], normaliser[:, :, new] = found[:, :, num_old:], total[:, :, num_old:]
                done = queries.stop
        ctx.save_for_backward(query, key, value, output, normaliser)
        ctx.stretches, ctx.scaling = stretches, scaling
        ctx.has_blocks = is_bf16 and any(map(_is_long, stretches.parts))
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, normaliser = ctx.saved_tensors
        query_grad, *key_grads = (torch.zeros_like(tensor) for tensor in (query, key, value))
        with torch.autocast("cpu", enabled=False):
            if ctx.has_blocks:
                key, normaliser = centred(query, key, normaliser, ctx.scaling)
            # with the output and the normaliser of all keys, each part gives its share of the gradients
            for part in ctx.stretches.parts:
                kept = part.of_queries(grad)
                if part.is_causal and part.repeated:
                    kept[:, :, : part.num_repeated] = 0  # in a copy: these outputs were dropped
                in_blocks = ctx.has_blocks and _is_long(part)
                own_grad, *found = (backward_in_blocks if in_blocks else _backward_of_kernel)(
                    kept, part.of_queries(query), part.of_keys(key), part.of_keys(value),
                    part.of_queries(output), part.of_queries(normaliser), part.is_causal, ctx.scaling,
                )  # fmt: skip
                query_grad[:, :, part.queries] += part.without_repeated(own_grad)
                for total, shares in zip(key_grads, found, strict=True):
                    part.add_keys(total, shares)
        return query_grad, *key_grads, None, None, None


def _is_long(part: Part) -> bool:
    return is_long(part.num_queries, part.num_keys)


def _backward_of_kernel(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
    """`backward_in_blocks` by torch's kernel, in the dtype of the tensors."""
    *tensors, is_causal, scaling = given
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    grads: tuple[Tensor, Tensor, Tensor] = kernel(*tensors, 0.0, is_causal, scale=scaling)
    return grads


def _merge(output: Tensor, normaliser: Tensor, part: Tensor, total: Tensor) -> None:
    """Merge the attention to further keys into that to earlier ones, in place."""
    share = torch.sigmoid(total - normaliser).unsqueeze(-1)  # of the further keys
    output.lerp_(part, share)
    normaliser.copy_(torch.logaddexp(normaliser, total))


def gathered(tensor: Tensor, places: Tensor) -> Tensor:
    """Rows of a tensor, which may occur often. Their gradients are summed in float32, in the same order every time.

    PyTorch would sum half precision in half precision on a GPU, where many small gradients are lost in their sum.

    Args:
        tensor: (C, ...), float.
        places: Rows to take, (K,) int64.

    Returns:
        (K, ...).
    """
    output: Tensor = _Gather.apply(tensor, places)  # type: ignore[no-untyped-call]
    return output


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size = len(tensor)
        return tensor.index_select(0, places)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        exact = grad.to(torch.promote_types(grad.dtype, torch.float32))
        total = exact.new_zeros(ctx.size, *grad.shape[1:])
        # on a GPU, index_add_ adds in any order
        return total.index_put_((places,), exact, accumulate=True).to(grad.dtype), None
