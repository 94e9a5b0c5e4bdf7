"""Throughput and memory of a synthesis: prints what it measured. `make test-synthesis`."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lit_sft.synthesis.settings import ModelSettings, SynthesisSettings
from lit_sft.synthesis.synthesize import synthesize
from tests.lit_sft.stub_server import stub_process
from tests.lit_sft.synthesis.writer import english

pytest.importorskip("openai")

WRITER = "tests.lit_sft.synthesis.writer:write_pairs"
LATENCY = 0.2
WORDS = (
    *("the", "old", "door", "of", "that", "house", "was", "open", "in", "summer", "and", "people", "came", "to", "see"),
    *("its", "garden", "where", "apple", "trees", "grew", "beside", "a", "pond", "while", "children", "played"),
)


def write_many(path: Path, count: int, characters: int) -> str:
    """Articles about different houses, each followed by ordinary words up to a length."""
    with path.open("w", encoding="utf-8") as stream:
        for number in range(count):
            words = random.Random(number).choices(WORDS, k=characters // 6)
            more = " ".join(f"{' '.join(words[at : at + 12]).capitalize()}." for at in range(0, len(words), 12))
            stream.write(f'{{"text": "{english(number)} {more}", "article_id": "house {number}"}}\n')
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [8, 16])
def test_requests_are_under_way_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concurrency: int) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    count = 150 * concurrency  # 30 seconds, as a run is measured whole: with reading, and the page at its end
    articles = write_many(tmp_path / "a.jsonl", count, 2000)
    with stub_process(WRITER, latency=LATENCY) as address:
        model = ModelSettings(endpoint=address, name="m", concurrency=concurrency)
        warm_up = SynthesisSettings(str(tmp_path / "first"), model, articles=articles, max_articles=20)
        synthesize(warm_up)  # imports what the checks need
        started = time.monotonic()
        summary = synthesize(SynthesisSettings(str(tmp_path / "out"), model, articles=articles))
        rate = count / (time.monotonic() - started)
    ideal = concurrency / LATENCY
    print(f"\n{concurrency} at once: {rate:.0f} of {ideal:.0f} requests a second, {rate / ideal:.2f}")
    assert summary["usage"]["calls"] == count
    assert rate / ideal > 0.4  # 0.9 on idle cores; one request after the other would give 0.1 or less


MEASURED = """
import resource, sys
from lit_sft.synthesis.settings import ModelSettings, SynthesisSettings
from lit_sft.synthesis.synthesize import synthesize
output, articles, address = sys.argv[1:]
model = ModelSettings(endpoint=address, name="m", concurrency=16)
summary = synthesize(SynthesisSettings(output, model, articles=articles))
print(summary["subjects"]["accepted"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_holds_no_articles_replies_or_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    counts, peaks = (1_000, 20_000), []
    with stub_process(WRITER, latency=0.0) as address:
        for count in counts:
            articles = write_many(tmp_path / f"{count}.jsonl", count, 7000)
            command = [sys.executable, "-c", MEASURED, str(tmp_path / str(count)), articles, address]
            accepted, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            assert int(accepted) == count
            peaks.append(int(peak) * 1024)
    grown = (peaks[1] - peaks[0]) / (counts[1] - counts[0])
    print(
        f"\n{peaks[0] >> 20} MB at {counts[0]:,} articles, {peaks[1] >> 20} MB at {counts[1]:,}: {grown:.0f} bytes each"
    )
    assert grown < 3500  # an article has 7,000 characters, and its pairs 400 bytes of fingerprints each
