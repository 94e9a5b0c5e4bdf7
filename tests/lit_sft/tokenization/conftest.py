"""Texts in two languages, made by rule."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_sft.tokenization.train import TrainedTokenizer, train_tokenizer

ENGLISH = ["the", "lamp", "keeper", "of", "the", "harbour", "lights", "a", "boat", "and", "reads", "to", "children"]
CHINESE = "博士写论文。渔夫在海边点灯，孩子们听故事。天气好，船就出海。"


def sentences(number: int) -> list[str]:
    """Sentences in English and Chinese; the same for the same number."""
    rng = random.Random(0)
    english = [" ".join(rng.choices(ENGLISH, k=12)).capitalize() + "." for _ in range(number)]
    chinese = ["".join(rng.choices(CHINESE.split("，"), k=3)) for _ in range(number)]
    return [text for pair in zip(english, chinese, strict=True) for text in pair]


@pytest.fixture
def train(tmp_path: Path, write: Callable[..., str]) -> Callable[..., TrainedTokenizer]:
    """Train a small tokenizer on texts in the folder `tok`."""

    def _train(texts: list[str] | None = None, **settings: Any) -> TrainedTokenizer:
        rows = [{"text": text} for text in texts or sentences(100)]
        folder = settings.pop("folder", tmp_path / "tok")
        return train_tokenizer(write("texts.jsonl", rows), folder, **{"vocab_size": 400, **settings})

    return _train
