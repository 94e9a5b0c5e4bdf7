"""Every Unicode block through a tokenizer and back: which characters does it change?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fontTools.unicodedata import Blocks

from data_modules.progress import Progress
from lit_sft.tokenization.compared import Compared, first_difference

_LAST = 0x110000
_PLANE = 0x10000
_SURROGATES = range(0xD800, 0xE000)
_TOGETHER = 32
"""Characters of a string."""

_AT_ONCE = 2048
"""Strings encoded at once."""


@dataclass(frozen=True, slots=True)
class Block:
    """A range of characters.

    Attributes:
        name: Its name in Unicode; for characters outside any block, their plane.
        start: The first character.
        stop: After the last one.
    """

    name: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class ChangedBlock:
    """A block that a tokenizer does not return exactly.

    Attributes:
        block: The block.
        characters: Its characters that come back changed, each encoded by itself.
        strings: Its strings of consecutive characters that come back changed.
        first: The first such character; if every character by itself comes back, a string from its first difference.
        returned: What comes back instead.
    """

    block: Block
    characters: int
    strings: int
    first: str
    returned: str


def all_blocks() -> list[Block]:
    """All blocks of all planes, without surrogates, which are not characters."""
    stops = [*Blocks.RANGES[1:], _LAST]
    ranges = zip(Blocks.VALUES, Blocks.RANGES, stops, strict=True)
    return [
        block
        for name, start, stop in ranges
        if start not in _SURROGATES
        for block in ([Block(name, start, stop)] if name != "No_Block" else _by_plane(start, stop))
    ]


def _by_plane(start: int, stop: int) -> Iterator[Block]:
    """Characters outside any block, plane by plane."""
    while start < stop:
        end = min(stop, (start // _PLANE + 1) * _PLANE)
        yield Block(f"no block, plane {start // _PLANE}", start, end)
        start = end


def changed_blocks(tokenizer: Compared, blocks: list[Block]) -> list[ChangedBlock]:
    """The blocks that a tokenizer does not return exactly.

    Args:
        tokenizer: The tokenizer.
        blocks: The blocks to try, character by character in strings of consecutive ones.
    """
    changed: dict[Block, list[tuple[str, str]]] = {}
    strings = [(block, text) for block in blocks for text in _strings(block)]
    with Progress(f"Unicode through {tokenizer.name}", "strings", len(strings)) as progress:
        for at in range(0, len(strings), _AT_ONCE):
            some = strings[at : at + _AT_ONCE]
            returned = _returned(tokenizer, [text for _, text in some])
            for (block, text), back in zip(some, returned, strict=True):
                if back != text:
                    changed.setdefault(block, []).append((text, back))
            progress.update(len(some))
    return [_examined(tokenizer, block, failed) for block, failed in changed.items()]


def _examined(tokenizer: Compared, block: Block, failed: list[tuple[str, str]]) -> ChangedBlock:
    """Find the characters at fault."""
    single = [character for text, _ in failed for character in text]
    faults = [pair for pair in zip(single, _returned(tokenizer, single), strict=True) if pair[0] != pair[1]]
    first, returned = faults[0] if faults else _from_difference(*failed[0])
    return ChangedBlock(block, len(faults), len(failed), first, returned)


def _from_difference(text: str, returned: str) -> tuple[str, str]:
    """Two texts without the beginning that they share."""
    at = first_difference(text, returned)
    return text[at:], returned[at:]


def _returned(tokenizer: Compared, texts: list[str]) -> list[str]:
    return tokenizer.decode(tokenizer.encode(texts))


def _strings(block: Block) -> Iterator[str]:
    for at in range(block.start, block.stop, _TOGETHER):
        yield "".join(map(chr, range(at, min(at + _TOGETHER, block.stop))))
