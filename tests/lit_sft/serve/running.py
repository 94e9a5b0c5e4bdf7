"""A server in a thread of the test, and OpenAI's own client for it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from data_modules.records.conversation import Conversation, Message, Role
from lit_sft.models.generation import GenerationRequest, GenerationSettings
from lit_sft.models.loaded import LoadedModel
from lit_sft.models.unfinished import Piece
from lit_sft.models.worker import ModelWorker
from lit_sft.serve.served import Limits, ServedModels
from tests.waiting import LONGEST, wait_until

HELLO = [{"role": "user", "content": "Hello, 羊!"}]


@dataclass
class RunningServer:
    """A server that listens.

    Attributes:
        models: What it serves.
        port: Where it listens.
        lines: Its log.
        stop: Has it shut down, as Ctrl-C does; to be waited for.
    """

    models: ServedModels
    port: int
    lines: list[str] = field(default_factory=list)
    stop: Callable[[], None] = lambda: None

    @property
    def worker(self) -> ModelWorker:
        """The worker of its first model."""
        return next(iter(self.models.workers.values()))

    @property
    def address(self) -> str:
        """Without a path."""
        return f"http://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> Any:
        """OpenAI's client; it does not try again by itself."""
        import openai

        options = {"api_key": "unused", "max_retries": 0, "timeout": LONGEST} | options
        return openai.OpenAI(base_url=f"{self.address}/v1", **options)


@contextlib.contextmanager
def running(
    loaders: Mapping[str, Callable[[], LoadedModel]], limits: Limits = Limits(), **options: Any
) -> Iterator[RunningServer]:
    """Serve models for a while."""
    import uvicorn

    from lit_sft.serve.app import build_app
    from lit_sft.serve.command import _bound, _config

    models, lines = ServedModels(loaders, limits), list[str]()
    app = build_app(models, log=lines.append, **options)
    listening = _bound("127.0.0.1", 0)
    server = uvicorn.Server(_config(uvicorn, app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join()

    try:
        wait_until(lambda: server.started)
        yield RunningServer(models, listening.getsockname()[1], lines, stop)
    finally:
        stop()
        models.close()


def prompt_of(model: LoadedModel, text: str = "Hello, 羊!") -> list[int]:
    """The prompt of a conversation of one message."""
    (example,) = model.encoder.encode(Conversation((Message(Role.USER, text),), "test"))
    return list(map(int, example.prompt_ids()))


def answer_of(model: LoadedModel, prompt: list[int], num: int = 12, temperature: float = 0.0, **options: Any) -> str:
    """What the model answers without a server."""
    settings = GenerationSettings(num, temperature)
    return model.answer_requests([GenerationRequest(prompt, settings, **options)])[0].text


@contextlib.contextmanager
def occupied(worker: ModelWorker) -> Iterator[None]:
    """Keep a model busy for the length of a block: what is sent meanwhile waits."""
    reached, is_free = threading.Event(), threading.Event()

    def hold(piece: Piece) -> None:
        reached.set()
        assert is_free.wait(LONGEST)

    pending = worker.submit(GenerationRequest([1, 2, 3], GenerationSettings(400), listener=hold))
    assert reached.wait(LONGEST)
    try:
        yield
    finally:
        pending.cancel()
        is_free.set()
        pending.result(LONGEST)
