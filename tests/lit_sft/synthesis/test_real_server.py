"""A real local server with a real model of 135 M weights: runs to the end, and prints the yield, which is low."""

from __future__ import annotations

from pathlib import Path

import pytest

from lit_sft.synthesis.settings import ModelSettings, SynthesisSettings
from lit_sft.synthesis.synthesize import synthesize
from tests.lit_sft.real_server import real_server
from tests.lit_sft.synthesis.test_totals import check_totals
from tests.lit_sft.synthesis.writer import chinese, english, rows_of, write_articles

FERRY = (
    "The ferry of Lanternmere leaves the pier at nine in the morning and comes back at four. Captain Sorrel has "
    "steered it for thirty years. A ticket costs two coins, and children go free. In winter, when the lake freezes, "
    "the ferry stays in its shed and Sorrel repairs nets."
)


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.filterwarnings("default::ResourceWarning")
def test_a_real_model_runs_to_the_end(tmp_path: Path) -> None:
    server = real_server(2048)
    model = ModelSettings(
        endpoint=f"{server.listening_address}/v1", name="smollm2", key_variable=None, max_tokens=400, concurrency=1,
        timeout=600.0,
    )  # fmt: skip
    articles = write_articles(tmp_path / "a.jsonl", [FERRY, english(3), chinese(7)])
    settings = SynthesisSettings(str(tmp_path / "out"), model, articles=articles, attempts=2)
    summary = synthesize(settings)
    check_totals(summary, tmp_path / "out", 3)
    assert summary["subjects"]["not_reached"] == 0
    assert summary["usage"]["tokens_written"] > 0
    print(f"articles {summary['subjects']}, pairs {summary['pairs']}, failures {summary['failures']}")
    print({rule["name"]: rule["refused"] for rule in summary["rules"]})
    for row in rows_of(tmp_path / "out" / "pairs.jsonl"):
        print([message["content"] for message in row["messages"]])
    again = synthesize(settings)
    assert again["usage"]["calls"] == 0
    assert (again["subjects"], again["pairs"]) == (summary["subjects"], summary["pairs"])
