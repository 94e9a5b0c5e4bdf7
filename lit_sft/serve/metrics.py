"""What a server counts, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from lit_sft.serve.served import ServedModels

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)


class Metrics:
    """Counts requests and tokens.

    Args:
        models: Whose queues are shown.
    """

    def __init__(self, models: ServedModels) -> None:
        self._models = models
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "lit_sft_requests", "Requests by their HTTP status; 499: the client went.", ("path", "model", "status"),
            registry=registry,
        )  # fmt: skip
        self._tokens = Counter("lit_sft_tokens", "Tokens of prompts and answers.", ("model", "kind"), registry=registry)
        self._seconds = Histogram(
            "lit_sft_request_seconds", "From a request to the end of its answer.", ("path", "model"),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._running = Gauge("lit_sft_running", "Answers that are being made.", ("model",), registry=registry)
        self._waiting = Gauge("lit_sft_waiting", "Answers in the queue.", ("model",), registry=registry)
        self._loaded = Gauge("lit_sft_loaded", "Whether the model is in memory.", ("model",), registry=registry)

    def count(
        self, path: str, model: str, status: int, seconds: float, *, num_prompt: int = 0, num_answer: int = 0
    ) -> None:
        """Count a request that is done.

        Args:
            path: Of the endpoint.
            model: Its name; empty if there is none, so that names that clients invent are not kept.
            status: Of the response.
            seconds: How long it took.
            num_prompt: Tokens of its prompts.
            num_answer: Tokens of its answers.
        """
        self._requests.labels(path, model, status).inc()
        self._seconds.labels(path, model).observe(seconds)
        for kind, count in (("prompt", num_prompt), ("answer", num_answer)):
            self._tokens.labels(model, kind).inc(count)

    def text(self) -> bytes:
        """All metrics, in Prometheus' text format."""
        for name, worker in self._models.workers.items():
            self._running.labels(name).set(worker.num_running)
            self._waiting.labels(name).set(worker.num_waiting)
            self._loaded.labels(name).set(worker.is_loaded)
        return bytes(generate_latest(self._registry))
