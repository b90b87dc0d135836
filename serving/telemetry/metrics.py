"""Metrics for `GET /metrics`; the number of series does not depend on which paths are requested."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass
class Trace:
    """What is recorded of one request: while it is answered, and at its end."""

    model: str = "none"
    stages: dict[str, float] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    request_id: str = ""
    endpoint: str = "other"
    method: str = "other"
    status: int = 500
    seconds: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; a stage that is entered twice adds up."""
        started = perf_counter()
        try:
            yield
        finally:
            self.add(name, perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """Add to the time of a stage."""
        self.stages[name] = self.stages.get(name, 0.0) + seconds

    def server_timing(self) -> str:
        """The stages as a `Server-Timing` header, in milliseconds."""
        return ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in list(self.stages.items()))


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def start_trace(method: str) -> Trace:
    """A new trace of a request, current for everything the calling task does; methods unknown to HTTP are `other`."""
    trace = Trace(method=method if method in _METHODS else "other")
    _current.set(trace)
    return trace


def current_trace() -> Trace:
    """The trace of the request that is being answered; a fresh one outside of any."""
    return _current.get() or Trace()


class Metrics:
    """Requests by endpoint, model and status; seconds by endpoint and stage; images and batches; requests under way."""

    def __init__(self) -> None:
        self._registry = to = CollectorRegistry()
        labels = ["endpoint", "method", "model", "status"]
        self._requests = Counter("fewpair_requests", "Answered requests.", labels, registry=to)
        seconds = partial(Histogram, buckets=_SECONDS, registry=to)
        self._seconds = seconds("fewpair_request_seconds", "Seconds to the answer.", ["endpoint"])
        self._stages = seconds("fewpair_stage_seconds", "Seconds in a stage.", ["endpoint", "stage"])
        self._images = Counter("fewpair_images", "Pictures, or tiles of large ones, that models ran on.", registry=to)
        self._batches = Histogram("fewpair_batch_size", "Images in a run of a model.", buckets=_BATCHES, registry=to)
        self._admitted = Gauge("fewpair_requests_admitted", "Admitted and not yet answered.", registry=to)
        self._waiting = Gauge("fewpair_requests_waiting", "Waiting for a worker or the device.", registry=to)

    def watch(self, *, admitted: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Report these numbers of requests, read when Prometheus scrapes."""
        self._admitted.set_function(admitted)
        self._waiting.set_function(waiting)

    def count(self, trace: Trace) -> None:
        """Count one answered request."""
        self._requests.labels(trace.endpoint, trace.method, trace.model, f"{trace.status}").inc()
        self._seconds.labels(trace.endpoint).observe(trace.seconds)
        for stage, spent in list(trace.stages.items()):  # the run of a cancelled request may still add to it
            self._stages.labels(trace.endpoint, stage).observe(spent)

    def count_run(self, images: int) -> None:
        """Count a run of a model."""
        self._images.inc(images)
        self._batches.observe(images)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)
