"""The models of a server: each has a name and a worker, which loads it when it is first asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lit_sft.models.loaded import LoadedModel
from lit_sft.models.worker import ModelWorker
from lit_sft.serve.errors import ApiError

_SECONDS_TO_CLOSE = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server allows.

    Attributes:
        batch_size: Answers that a model makes together, at most.
        max_waiting: Answers that may wait for a model; a request can ask for several.
        max_new_tokens: Tokens of an answer to a chat that sets no limit.
        max_body_bytes: Size of a request.
    """

    batch_size: int = 16
    max_waiting: int = 64
    max_new_tokens: int = 1024
    max_body_bytes: int = 4 * 2**20


class ServedModels:
    """Models by name.

    Args:
        loaders: Load each model.
        limits: What is allowed.

    Attributes:
        limits: As given.
        workers: The worker of each model.
    """

    def __init__(self, loaders: Mapping[str, Callable[[], LoadedModel]], limits: Limits) -> None:
        self.limits = limits
        self.workers = {
            name: ModelWorker(load, name=name, batch_size=limits.batch_size, max_waiting=limits.max_waiting)
            for name, load in loaders.items()
        }
        self._created = int(time.time())

    def worker(self, name: str) -> ModelWorker:
        """The worker of a model.

        Raises:
            ApiError: If there is no such model.
        """
        if name not in self.workers:
            shown = name[:100] + ("..." if name[100:] else "")
            raise ApiError(
                404,
                f"The model `{shown}` does not exist; this server has {', '.join(self.workers)}.",
                "model",
                "model_not_found",
            )
        return self.workers[name]

    def described(self, name: str) -> dict[str, Any]:
        """A model as the API lists it."""
        return {"id": name, "object": "model", "created": self._created, "owned_by": "lit_sft"}

    def close(self) -> None:
        """Cancel all answers and end all threads, but do not wait long for one that is loading a model."""
        for worker in self.workers.values():
            worker.close(0)
        for worker in self.workers.values():
            worker.close(_SECONDS_TO_CLOSE)
