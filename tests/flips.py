"""Bits that flip on a disk."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path


def flipped(path: Path, *, count: int, seed: int) -> Iterator[Path]:
    """The file with one bit flipped, several times over: near its start, near its end, and anywhere; then restored.

    Args:
        path: Changed in place while the caller looks at it.
        count: Flips in all.
        seed: Of the places.
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
