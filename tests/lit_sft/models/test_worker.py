"""A model in its own thread: batches, cancelling, a bounded queue, errors that stay with their request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from data_modules.errors import UserError
from lit_sft.models.generation import Generated, GenerationRequest, GenerationSettings
from lit_sft.models.loaded import LoadedModel
from lit_sft.models.unfinished import Piece
from lit_sft.models.worker import BusyError, ClosedError, ModelWorker, PendingAnswer
from tests.lit_sft.models.test_generation import PROMPTS, build
from tests.waiting import LONGEST, wait_until

GREEDY = GenerationSettings(max_new_tokens=8)
LONG = GenerationRequest(PROMPTS[0], replace(GREEDY, max_new_tokens=400))
SHORT = GenerationRequest(PROMPTS[1], GREEDY)


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    # float64: rounding, which depends on the batch, is far below any difference between two tokens
    return LoadedModel("tiny", build("gpt2", tokenizer).double(), tokenizer, "chatml")


@pytest.fixture
def sizes(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all batches so far."""
    found: list[int] = []
    answer = model.answer_requests

    def noted(requests: Any, batch_size: int = 16) -> list[Generated]:
        found.append(len(requests))
        return answer(requests, batch_size)

    monkeypatch.setattr(model, "answer_requests", noted)
    return found


@pytest.fixture
def start() -> Iterator[Callable[..., ModelWorker]]:
    """Starts workers, which are closed at the end."""
    workers: list[ModelWorker] = []

    def started(model: LoadedModel, **options: Any) -> ModelWorker:
        workers.append(ModelWorker(lambda: model, **options))
        return workers[-1]

    yield started
    for worker in workers:
        worker.close(LONGEST)


class Gate:
    """A listener that holds its batch at the first piece until it is opened."""

    def __init__(self) -> None:
        self.is_reached, self._is_open = threading.Event(), threading.Event()

    def __call__(self, piece: Piece) -> None:
        self.is_reached.set()
        assert self._is_open.wait(LONGEST)

    def open(self) -> None:
        self._is_open.set()


def held(worker: ModelWorker, request: GenerationRequest = LONG) -> tuple[PendingAnswer, Gate]:
    """A request that is being answered until its gate is opened."""
    gate = Gate()
    pending = worker.submit(replace(request, listener=gate))
    assert gate.is_reached.wait(LONGEST)
    return pending, gate


def test_answers_to_many_threads_equal_those_one_by_one(
    model: LoadedModel, sizes: list[int], start: Callable[..., ModelWorker]
) -> None:
    sampled = replace(GREEDY, temperature=1.2, top_p=0.95)
    requests = [
        GenerationRequest(prompt, settings, seed, num_likeliest=2)
        for prompt in PROMPTS
        for seed, settings in enumerate((GREEDY, sampled, sampled))
    ]
    expected = [model.answer_requests([each])[0] for each in requests]
    sizes.clear()
    worker, heard = start(model, batch_size=4), [[] for _ in requests]  # type: ignore[var-annotated]
    with ThreadPoolExecutor(len(requests)) as threads:
        answers = threads.map(
            lambda each, pieces: worker.submit(replace(each, listener=pieces.append)).result(LONGEST), requests, heard
        )
        for answer, wanted, pieces in zip(answers, expected, heard, strict=True):
            assert (answer.text, answer.num_tokens, answer.ended) == (wanted.text, wanted.num_tokens, wanted.ended)
            assert [each.token for each in answer.logprobs] == [each.token for each in wanted.logprobs]
            assert "".join(piece.text for piece in pieces) == wanted.text
    assert sum(sizes) == len(requests)
    assert max(sizes) <= 4


def test_requests_that_wait_are_answered_as_one_batch(
    model: LoadedModel, sizes: list[int], start: Callable[..., ModelWorker]
) -> None:
    worker = start(model)
    first, gate = held(worker)
    others = [worker.submit(SHORT) for _ in range(5)]
    assert (worker.num_running, worker.num_waiting) == (1, 5)
    gate.open()
    first.cancel()
    assert {other.result(LONGEST).text for other in others} == {model.answer_requests([SHORT])[0].text}
    assert sizes[:2] == [1, 5]


def test_the_model_is_loaded_once_and_only_when_needed(model: LoadedModel) -> None:
    loaded: list[threading.Thread] = []

    def load() -> LoadedModel:
        loaded.append(threading.current_thread())
        return model

    worker = ModelWorker(load, name="tiny")
    assert not worker.is_loaded
    assert not loaded
    assert worker.load().result(LONGEST) is worker.load().result(LONGEST) is model
    worker.submit(SHORT).result(LONGEST)
    assert worker.is_loaded
    assert [thread.name for thread in loaded] == ["model tiny"]
    worker.close(LONGEST)
    assert not loaded[0].is_alive()


def test_a_model_that_cannot_be_loaded_fails_those_who_wait_and_is_tried_again(model: LoadedModel) -> None:
    attempts, gate = iter([UserError("no such folder"), None]), threading.Event()

    def load() -> LoadedModel:
        assert gate.wait(LONGEST)
        if error := next(attempts):
            raise error
        return model

    worker = ModelWorker(load)
    waiting = [worker.submit(SHORT) for _ in range(2)]
    gate.set()
    for pending in waiting:
        with pytest.raises(UserError, match="no such folder"):
            pending.result(LONGEST)
    assert not worker.is_loaded
    assert worker.submit(SHORT).result(LONGEST).num_tokens == 8
    worker.close(LONGEST)


def test_an_error_in_a_listener_ends_only_its_own_answer(
    model: LoadedModel, sizes: list[int], start: Callable[..., ModelWorker]
) -> None:
    worker, heard = start(model), []  # type: ignore[var-annotated]

    def fail(piece: Piece) -> None:
        heard.append(piece)
        raise OSError("the client is gone")

    first, gate = held(worker)
    broken = worker.submit(replace(LONG, listener=fail))
    other = worker.submit(SHORT)
    gate.open()
    first.cancel()
    with pytest.raises(OSError, match="the client is gone"):
        broken.result(LONGEST)
    assert other.result(LONGEST) == model.answer_requests([SHORT])[0]
    assert len(heard) == 1
    assert sizes[:2] == [1, 2]


def test_an_answer_is_reported_while_others_of_its_batch_go_on(
    model: LoadedModel, sizes: list[int], start: Callable[..., ModelWorker]
) -> None:
    worker, answers = start(model), []  # type: ignore[var-annotated]

    def wait_for_the_short_one(piece: Piece) -> None:
        long_pieces.append(piece)
        if len(long_pieces) == 20:  # the short answer has 8 tokens
            answers.append(short.result(LONGEST))

    long_pieces: list[Piece] = []
    first, gate = held(worker)
    long = worker.submit(replace(LONG, listener=wait_for_the_short_one))
    short = worker.submit(SHORT)
    gate.open()
    first.cancel()
    assert long.result(LONGEST).num_tokens == 400
    assert [answer.num_tokens for answer in answers] == [8]
    assert sizes == [1, 2]


def test_cancelling_ends_one_answer_and_frees_its_place(model: LoadedModel, start: Callable[..., ModelWorker]) -> None:
    worker = start(model, max_waiting=2)
    running, gate = held(worker)
    waiting = [worker.submit(SHORT) for _ in range(2)]
    with pytest.raises(BusyError, match="2 requests waiting already"):
        worker.submit(SHORT)
    waiting[0].cancel()
    assert worker.num_waiting == 1
    waiting.append(worker.submit(SHORT))
    assert waiting[0].result(LONGEST) == Generated("", 0, ended=False, is_cancelled=True)
    running.cancel()
    gate.open()
    answer = running.result(LONGEST)
    assert answer.is_cancelled
    assert 0 < answer.num_tokens < 400
    assert {pending.result(LONGEST).num_tokens for pending in waiting[1:]} == {8}
    wait_until(lambda: worker.num_running == 0)


def test_a_request_that_asks_for_it_is_cancelled_too(model: LoadedModel, start: Callable[..., ModelWorker]) -> None:
    worker = start(model)

    def fail() -> bool:
        raise ValueError("asked too often")

    assert worker.submit(replace(LONG, is_cancelled=lambda: True)).result(LONGEST).is_cancelled
    with pytest.raises(ValueError, match="asked too often"):
        worker.submit(replace(LONG, is_cancelled=fail)).result(LONGEST)


def test_a_prompt_without_room_for_an_answer_fails_alone(model: LoadedModel, start: Callable[..., ModelWorker]) -> None:
    worker = start(model)
    first, gate = held(worker)
    too_long, other = worker.submit(GenerationRequest([7] * 512, GREEDY)), worker.submit(SHORT)
    gate.open()
    first.cancel()
    with pytest.raises(UserError, match="a prompt of 512 tokens leaves no room for an answer"):
        too_long.result(LONGEST)
    assert other.result(LONGEST).num_tokens == 8


def test_an_error_of_the_model_fails_its_batch_and_nothing_else(
    model: LoadedModel, start: Callable[..., ModelWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, answer = start(model), model.answer_requests

    def fail(requests: Any, batch_size: int = 16) -> list[Generated]:
        monkeypatch.setattr(model, "answer_requests", answer)
        raise MemoryError("no memory left")

    monkeypatch.setattr(model, "answer_requests", fail)
    with pytest.raises(MemoryError, match="no memory left"):
        worker.submit(SHORT).result(LONGEST)
    assert worker.submit(SHORT).result(LONGEST).num_tokens == 8


def test_closing_cancels_everything_and_ends_the_thread(model: LoadedModel) -> None:
    worker = ModelWorker(lambda: model)
    running, gate = held(worker)
    waiting = worker.submit(SHORT)
    worker.close(0)
    gate.open()
    worker.close(LONGEST)
    assert running.result(LONGEST).is_cancelled
    with pytest.raises(ClosedError):
        waiting.result(LONGEST)
    with pytest.raises(ClosedError):
        worker.submit(SHORT)
    assert not [thread for thread in threading.enumerate() if thread.name == "model "]


def test_closing_a_worker_that_was_never_used_is_fine(model: LoadedModel) -> None:
    worker = ModelWorker(lambda: model)
    worker.close()
    with pytest.raises(ClosedError):
        worker.load()


def test_cancelling_a_future_has_no_effect(model: LoadedModel, start: Callable[..., ModelWorker]) -> None:
    """asyncio cancels a future together with the task that waits for it."""
    worker = start(model)
    assert not worker.load().cancel()
    pending, gate = held(worker)
    assert not pending.future.cancel()
    pending.cancel()
    gate.open()
    assert pending.result(LONGEST).is_cancelled


def test_prompts_are_encoded_while_an_answer_is_being_made(
    model: LoadedModel, start: Callable[..., ModelWorker]
) -> None:
    worker = start(model)
    pending, gate = held(worker)
    with worker.encoding() as encoder:
        assert encoder.ids_of_prompt("羊 <|im_end|>") == model.encoder.ids_of_prompt("羊 <|im_end|>")
        assert encoder.tokenizer is not model.tokenizer
    pending.cancel()
    gate.open()
    pending.result(LONGEST)


def test_other_work_is_done_between_batches(
    model: LoadedModel, sizes: list[int], start: Callable[..., ModelWorker]
) -> None:
    worker = start(model)
    pending, gate = held(worker)
    done = [worker.run(lambda loaded: (loaded, threading.current_thread().name)), worker.submit(SHORT)]
    cancelled = worker.run(lambda loaded: pytest.fail("it was cancelled"))
    cancelled.cancel()
    pending.cancel()
    gate.open()
    assert done[0].result(LONGEST) == (model, "model ")
    assert done[1].result(LONGEST).num_tokens == 8  # type: ignore[union-attr]
    assert sizes == [1, 1]
    with pytest.raises(CancelledError):
        cancelled.result(LONGEST)
    with pytest.raises(ZeroDivisionError):
        worker.run(lambda loaded: 1 // 0).result(LONGEST)
