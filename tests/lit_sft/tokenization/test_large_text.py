"""One gigabyte of text trains in less than 4 GB of memory: English on all of it, Chinese on a sample of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.documents import ROOT

GB = 10**9
NUM_WORDS, CORE = 3_000_000, 8000
"""Words of the English text, and those that are common to all texts: the frequency of the n-th falls with n, after that
with the square of n. Source: Ferrer i Cancho and Solé, Two regimes in the frequency of words (2001)."""


def english(rng: np.random.Generator) -> Iterator[str]:
    """Lines of words as frequent as those of English text."""
    alphabet = np.frombuffer(b"etaoinshrdlucmfwypvbgkjqxz", dtype=np.uint8)
    letters = alphabet[rng.integers(len(alphabet), size=12 * NUM_WORDS)].tobytes().decode()
    ends = np.cumsum(np.minimum(12, 2 + rng.poisson(5, size=NUM_WORDS)))
    words = np.array([letters[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)], dtype=object)
    rank = np.arange(1, NUM_WORDS + 1, dtype=np.float64)
    share = np.cumsum(np.minimum(1, CORE / rank) / rank)
    while True:
        ids = np.searchsorted(share, rng.random(100_000) * share[-1])
        for line in words[ids].reshape(-1, 100):
            yield " ".join(line) + "."


def chinese(rng: np.random.Generator) -> Iterator[str]:
    """Lines of clauses of 4 to 12 characters, nearly all of which are new."""
    share = np.cumsum(1 / (np.arange(5000) + 10))
    while True:
        line = (0x4E00 + np.searchsorted(share, rng.random(200_000) * share[-1])).astype("<u4")
        line[np.cumsum(rng.integers(5, 14, size=20_000)).clip(max=len(line) - 1)] = ord("，")
        text = line.tobytes().decode("utf-32-le")
        yield from (text[start : start + 400] for start in range(0, len(text), 400))


def write_text(path: Path, lines: Iterator[str]) -> None:
    size = 0
    with path.open("wb") as stream:
        while size < GB:
            size += stream.write(next(lines).encode() + b"\n")


@pytest.mark.slow
@pytest.mark.parametrize(("text", "least"), [(english, 0.99 * GB), (chinese, 0.01 * GB)], ids=["English", "Chinese"])
def test_a_gigabyte_trains_in_4_gigabytes_of_memory(
    text: Callable[[np.random.Generator], Iterator[str]], least: float, tmp_path: Path
) -> None:
    file, output = tmp_path / "text.txt", tmp_path / "tok"
    write_text(file, text(np.random.default_rng(0)))
    started = time.monotonic()
    command = ["-m", "lit_sft", "tokenizer", "train", str(file), "--vocab_size", "16384", "--output", str(output)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *command], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    report = json.loads((output / "training.json").read_text(encoding="utf-8"))
    print(f"{done.stdout}{report['used_bytes']:,} of {report['bytes']:,} bytes, {time.monotonic() - started:.0f} s")
    found = re.search(r"peak memory ([\d.]+) ([MG])B", done.stdout)
    assert found is not None
    assert float(found[1]) * {"M": 10**6, "G": GB}[found[2]] < 4 * GB
    assert report["entries"] == 16384
    assert report["used_bytes"] >= least
