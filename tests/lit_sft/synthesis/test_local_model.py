"""A local model as the generator: equal replies alone and in a batch, and errors that name the problem."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lit_sft.endpoint.chat import EndpointError, NotSentError, Request
from lit_sft.models.adapters import causal_lm
from lit_sft.models.backbone import BackboneSettings, build_backbone
from lit_sft.models.generation import Generated, GenerationRequest
from lit_sft.models.loaded import LoadedModel
from lit_sft.synthesis.local_model import LocalModel
from lit_sft.synthesis.settings import ModelSettings, SynthesisSettings
from lit_sft.synthesis.synthesize import synthesize
from tests.conftest import MODELS
from tests.lit_sft.synthesis.writer import rows_of, write_articles

SIZE = 24


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    torch.manual_seed(0)
    config = {**MODELS["llama"], "max_position_embeddings": 4096}
    backbone = build_backbone(BackboneSettings(config=config), tokenizer)
    return LoadedModel("llama", backbone.eval(), tokenizer, "chatml", 300)


def request(text: str, **changed: object) -> Request:
    return Request((("user", text),), **{"max_tokens": SIZE, "temperature": 1.0, "seed": 3, **changed})  # type: ignore[arg-type]


def test_reply_does_not_depend_on_the_batch(model: LoadedModel) -> None:
    local = LocalModel(model, batch_size=4)
    requests = [request(text) for text in ("a b", "a b c d e", "b", "c d", "e")]
    alone = [local.ask(each) for each in requests]
    with ThreadPoolExecutor(5) as pool:
        together = list(pool.map(local.ask, requests))
    assert together == alone
    assert len({reply.text for reply in alone}) == 5
    assert local.ask(request("a b", seed=4)) != alone[0]
    assert all(reply.tokens_written == SIZE for reply in alone if reply.finish_reason == "length")
    local.close()


def test_conversation_is_rendered_by_the_template(model: LoadedModel) -> None:
    local = LocalModel(model, batch_size=1)
    short = local.ask(request("a"))
    again = Request((("user", "a"), ("assistant", "b"), ("user", "c")), max_tokens=SIZE)
    assert local.ask(again).tokens_read > 2 * short.tokens_read
    local.close()


def test_request_that_is_too_long_fails_and_the_next_does_not(model: LoadedModel) -> None:
    local = LocalModel(model, batch_size=2)
    with pytest.raises(EndpointError, match=r"tokens; expected at most \d+"):
        local.ask(request("a b " * 2000))
    assert local.ask(request("a")).text
    local.close()


def test_closed_model_sends_nothing(model: LoadedModel) -> None:
    local = LocalModel(model, batch_size=2)
    local.close()
    with pytest.raises(NotSentError):
        local.ask(request("a"))


def test_closing_ends_requests_without_finishing_the_batch(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    started = threading.Event()

    def answer(requests: Sequence[GenerationRequest], batch_size: int) -> list[Generated]:
        started.set()
        while not all(each.is_cancelled and each.is_cancelled() for each in requests):
            threading.Event().wait(0.01)
        return [Generated("unfinished", 1, ended=False, is_cancelled=True) for _ in requests]

    monkeypatch.setattr(model, "answer_requests", answer)
    local = LocalModel(model, batch_size=1)
    with ThreadPoolExecutor(2) as pool:
        under_way, waiting = pool.submit(local.ask, request("a")), pool.submit(local.ask, request("b"))
        assert started.wait(60)
        local.close()
        assert isinstance(under_way.exception(60), NotSentError)
        assert isinstance(waiting.exception(60), NotSentError)


def test_synthesis_with_a_model_folder_runs_to_the_end(model: LoadedModel, tmp_path: Path) -> None:
    causal_lm(model.backbone).save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    articles = write_articles(tmp_path / "a.jsonl", ["The ferry leaves at nine.", "The mill is closed on Mondays."])
    own = ModelSettings(path=str(tmp_path / "model"), max_tokens=SIZE, device="cpu")
    settings = SynthesisSettings(str(tmp_path / "out"), own, articles=articles, attempts=2)
    summary = synthesize(settings)
    assert summary["subjects"]["failed"] == 2  # random weights write no JSON
    assert summary["usage"]["calls"] == 4
    assert summary["usage"]["cost"] is None
    assert all(row["attempts"] == 2 for row in rows_of(tmp_path / "out" / "failed.jsonl"))
    again = synthesize(settings)
    assert (again["usage"]["calls"], again["usage"]["from_journal"]) == (0, 4)
    assert again["failures"] == summary["failures"]
