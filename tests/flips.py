"""Simulates bit flips on disk."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path


def flipped(path: Path, *, count: int, seed: int) -> Iterator[Path]:
    """Flip one bit at a time, `count` times: near the start, near the end or anywhere; then restore the file.

    Args:
        path: The file; it is changed in place between yields.
        count: Number of flips.
        seed: Seed for choosing the bits.
    """
    content, draw = path.read_bytes(), random.Random(seed)
    size = len(content)
    for index in range(count):
        lowest, highest = [(0, size), (0, min(200, size)), (max(0, size - 200), size)][index % 3]
        place, bit = draw.randrange(lowest, highest), draw.randrange(8)
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        path.write_bytes(bytes(damaged))
        yield path
    path.write_bytes(content)
