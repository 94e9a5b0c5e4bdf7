"""Runs coroutines of all threads in one background thread, where they can be cancelled at any moment."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from lit_sft.endpoint.chat import NotSentError

_Value = TypeVar("_Value")


class Background:
    """A thread with an event loop, started on the first use.

    Args:
        client: The API client; closed at the end.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self._loop: asyncio.AbstractEventLoop | None = None
        self._under_way: set[Future[Any]] = set()
        self._has_ended = False
        self._lock = threading.Lock()

    def run(self, work: Coroutine[Any, Any, _Value]) -> _Value:
        """Start a coroutine and wait for its result.

        Raises:
            NotSentError: If it was cancelled, or `end` was called before.
        """
        future = self._start(work)
        try:
            return future.result()
        except CancelledError:
            raise NotSentError("cancelled: requests were stopped") from None
        finally:
            self._under_way.discard(future)

    def _start(self, work: Coroutine[Any, Any, _Value]) -> Future[_Value]:
        """Pass a coroutine to the thread, under the lock so that `end` finds every started one."""
        with self._lock:
            if self._has_ended:
                work.close()
                raise NotSentError("not sent: requests were stopped")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._run, args=(self._loop,), name="endpoint", daemon=True).start()
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
            self._under_way.add(future)
            return future

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        loop.run_forever()
        loop.close()

    def end(self) -> None:
        """Cancel everything, refuse new work, and let the thread end, without waiting for it."""
        with self._lock:
            loop, self._loop, self._has_ended = self._loop, None, True
        if loop is not None:
            loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self._ended(loop)))

    async def _ended(self, loop: asyncio.AbstractEventLoop) -> None:
        for future in list(self._under_way):  # only the futures: their clean-up cannot be cancelled safely
            future.cancel()
        await asyncio.sleep(0)
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
        await self.client.close()
        await loop.shutdown_asyncgens()
        loop.stop()
