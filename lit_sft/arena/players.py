"""The models that play: local ones, each in a thread of its own, and models behind endpoints."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

from data_modules.errors import UserError
from data_modules.records.conversation import Message
from lit_sft.arena.answers import Answer, State
from lit_sft.console import print_error_line
from lit_sft.endpoint.chat import EndpointError, Request
from lit_sft.endpoint.streaming import StreamingEndpoint
from lit_sft.files import error_line
from lit_sft.models.fitted_prompt import about_left_out, fitted_prompt
from lit_sft.models.generation import GenerationRequest, GenerationSettings
from lit_sft.models.loaded import LoadedModel
from lit_sft.models.worker import BusyError, ClosedError, ModelWorker


class Player(Protocol):
    """A model that answers."""

    @property
    def name(self) -> str:
        """What it is called on the page and in votes."""

    def begin(self, turns: Sequence[Message], settings: GenerationSettings, seed: int) -> Answer:
        """Begin to answer, without waiting.

        Args:
            turns: A system message or none, then messages and answers in turn; the last is the message to answer.
            settings: How to sample.
            seed: Of the sampling.
        """

    def digest(self) -> str:
        """A digest of the model, for votes; empty if unknown. May take a while."""

    def close(self) -> None:
        """Stop everything."""


class LocalPlayer:
    """A model in this process.

    Args:
        name: Its name on the page and in votes.
        load: Loads it; called in its own thread.
    """

    def __init__(self, name: str, load: Callable[[], LoadedModel]) -> None:
        self.name = name
        self._worker = ModelWorker(load, name=name)
        self._digest = ""
        self._digesting = threading.Lock()

    def prepare(self) -> Future[LoadedModel]:
        """Load the model now, in its own thread. The future has the model, or why it cannot be loaded."""
        loading = self._worker.load()
        # votes need the digest, and should not wait for it
        loading.add_done_callback(lambda done: None if done.exception() else self._start_digest())
        return loading

    def _start_digest(self) -> None:
        threading.Thread(target=self.digest, name=f"digest of {self.name}", daemon=True).start()

    def begin(self, turns: Sequence[Message], settings: GenerationSettings, seed: int) -> Answer:
        """Begin to answer; the model is loaded first if it is not yet."""
        answer = Answer(settings, seed)
        in_background(self._write, answer, turns, player=self.name)
        return answer

    def digest(self) -> str:
        """A digest of everything that the answers depend on; computed once."""
        with self._digesting:
            self._digest = self._digest or self._worker.load().result().digest()
            return self._digest

    def close(self) -> None:
        """Stop all answers, and let the thread end."""
        self._worker.close(timeout_seconds=1.0)

    def _write(self, answer: Answer, turns: Sequence[Message]) -> None:
        """Write an answer, and wait until it is finished."""
        context = self._worker.load().result().context_length
        with self._worker.encoding() as encoder:
            try:
                prompt = fitted_prompt(encoder, turns, context=context, max_new_tokens=answer.settings.max_new_tokens)
            except UserError as error:
                answer.finish("failed", error_line(error), is_refused=True)
                return
        request = GenerationRequest(
            prompt.tokens.prompt_ids(),
            answer.settings,
            answer.seed,
            listener=lambda piece: answer.add(piece.text),
            is_cancelled=lambda: answer.is_finished,
        )
        generated = self._worker.submit(request).result()
        state: State = "stopped" if generated.is_cancelled else "cut" if generated.is_cut else "done"
        answer.finish(state, about_left_out(prompt.num_left_out))


class EndpointPlayer:
    """A model behind an OpenAI-compatible endpoint.

    Args:
        name: Its name on the page and in votes.
        endpoint: Where it is.
    """

    def __init__(self, name: str, endpoint: StreamingEndpoint) -> None:
        self.name, self._endpoint = name, endpoint

    def begin(self, turns: Sequence[Message], settings: GenerationSettings, seed: int) -> Answer:
        """Begin to answer."""
        answer = Answer(settings, seed)
        in_background(self._write, answer, turns, player=self.name)
        return answer

    def digest(self) -> str:
        """Empty: what is behind an address may change at any time."""
        return ""

    def close(self) -> None:
        """Close all connections."""
        self._endpoint.close()

    def _write(self, answer: Answer, turns: Sequence[Message]) -> None:
        settings = answer.settings
        request = Request(
            tuple((turn.role.value, turn.content) for turn in turns),
            max_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=answer.seed,
        )

        def show(text: str) -> bool:
            answer.replace(text)
            return not answer.is_finished

        reason = self._endpoint.stream(request, show)
        answer.finish("cut" if reason == "length" else "done")


def in_background(
    write: Callable[[Answer, Sequence[Message]], None], answer: Answer, turns: Sequence[Message], *, player: str
) -> None:
    """Write an answer in a thread. If that fails, the answer says why."""

    def run() -> None:
        try:
            write(answer, turns)
        except (UserError, OSError, EndpointError) as error:
            answer.finish("failed", str(error) if isinstance(error, EndpointError) else error_line(error))
        except BusyError:
            answer.finish("failed", "too many requests are waiting; try again in a moment")
        except ClosedError:
            answer.finish("stopped")
        except BaseException as error:  # a thread's own error would be lost, and the page would wait for ever
            print_error_line(f"arena: {player} failed: {error_line(error)}")
            answer.finish("failed", error_line(error))

    threading.Thread(target=run, name=f"asks {player}", daemon=True).start()
