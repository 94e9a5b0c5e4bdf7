"""Memory and speed of encoding text, in processes of their own. Prints the figures."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

ENCODE = """
import json, re, sys, time
from pathlib import Path
from transformers import AutoTokenizer
from data_modules.encoding.text_cache import encode_texts
from data_modules.encoding.text_encoder import TextEncoder
from data_modules.encoding.token_shards import open_shards
from data_modules.records.splits import Sources

file, cache = sys.argv[1:3]
tokenizer = AutoTokenizer.from_pretrained("examples/tokenizer")
encoder = TextEncoder(tokenizer)
encoder.encode(["Warm up."])
began = time.process_time()
sources = Sources({"train": [file]}, {"val": 0.05})
folder = encode_texts(sources, (), ["nfc"], encoder, Path(cache), shard_tokens=4_000_000)
seconds = time.process_time() - began
# not ru_maxrss, which begins with that of the parent process
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
shards = open_shards(folder)
tokens, ends = 0, 0
for each in shards.values():
    for start in range(0, each.num_tokens, 1_000_000):
        stop = min(start + 1_000_000, each.num_tokens)
        tokens += len(each.tokens(start, stop))
        ends += int(each.sentence_ends(start, stop).sum())
bare = 0.0
if len(sys.argv) > 3:
    began, encode, texts = time.process_time(), tokenizer.backend_tokenizer.encode_batch_fast, []
    for line in open(file, encoding="utf-8"):
        texts.append(json.loads(line)["text"])
        if len(texts) == 1000:
            [each.ids for each in encode(texts)]
            texts = []
    [each.ids for each in encode(texts)]
    bare = time.process_time() - began
print(json.dumps({"tokens": tokens, "ends": ends, "seconds": seconds, "peak": peak, "bare": bare}))
"""


def sentences(seed: int) -> Iterator[str]:
    """Sentences without end, in two languages, all different."""
    rng = random.Random(seed)
    words = ["Rowan", "the", "village", "walks", "to", "a", "garden", "with", "seven", "apples", "and", "keeps", "bees"]
    while True:
        yield " ".join(rng.choices(words, k=12)) + f" {rng.randrange(10**6)}. "
        yield "".join(rng.choices("村子里的人每天去花园看蜜蜂和苹果树", k=15)) + "。"


def encode(file: Path, cache: Path, *more: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", ENCODE, str(file), str(cache), *more],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def write_documents(file: Path, num_sentences: int) -> None:
    source = sentences(1)
    with file.open("w", encoding="utf-8") as stream:
        for _ in range(num_sentences // 40):
            text = "".join(next(source) for _ in range(40))
            stream.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peaks = {}
    for million in (20, 60):
        file = tmp_path / f"{million}.jsonl"
        write_documents(file, million * 50_000)
        found = encode(file, tmp_path / f"cache{million}", *(["bare"] if million == 20 else []))
        peaks[million] = found["peak"]
        with capsys.disabled():
            print(f"\n{found['tokens'] / 1e6:.1f} M tokens: peak {found['peak']:.0f} MiB", end="")
            print(f", {found['tokens'] / found['seconds']:,.0f} tokens a second of one core", end="")
            if found["bare"]:
                print(f", {found['bare'] / found['seconds']:.2f} of a bare encode_batch_fast loop", end="")
        assert million * 0.8e6 < found["tokens"] < million * 2e6
    assert peaks[60] < peaks[20] + 30


@pytest.mark.slow
def test_a_document_of_100_mb_needs_a_few_times_its_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peaks = {}
    for megabytes in (1, 100):
        file, source, size = tmp_path / f"{megabytes}.txt", sentences(2), 0
        with file.open("w", encoding="utf-8") as stream:
            while size < megabytes * 1_000_000:
                size += stream.write(sentence := next(source)) + 2 * (not sentence.isascii()) * (len(sentence) - 1)
        found = encode(file, tmp_path / f"cache{megabytes}")
        peaks[megabytes] = found["peak"]
        with capsys.disabled():
            print(f"\none document of {size / 1e6:.0f} MB, {found['tokens'] / 1e6:.1f} M tokens: peak", end="")
            print(f" {found['peak']:.0f} MiB", end="")
        assert found["ends"] > size / 100
    assert peaks[100] < peaks[1] + 20 * 100
