from __future__ import annotations

from collections.abc import Iterator

import pytest

from lit_sft.models.loaded import LoadedModel
from tests.conftest import byte_tokenizer
from tests.lit_sft.models.test_generation import build
from tests.lit_sft.serve.running import RunningServer, running


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    tokenizer = byte_tokenizer()
    # float64: rounding, which depends on the batch, is far below any difference between two tokens
    return LoadedModel("tiny", build("gpt2", tokenizer).double(), tokenizer, "chatml")


@pytest.fixture(scope="module")
def server(model: LoadedModel) -> Iterator[RunningServer]:
    with running({"tiny": lambda: model, "other/name": lambda: model}) as found:
        yield found
