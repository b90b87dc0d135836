"""What `GET /metrics` counts: a number of series that does not grow with the paths strangers ask for."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import pynvml  # type: ignore[import-untyped]  # one of BentoML's own dependencies
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serving.counts import folder_of_counts, reserve, sum_up
from serving.gate import Gate

logger = logging.getLogger("fewpair.serving")
_TEMPLATES = (
    (re.compile(r"/(segment|synthesize|metrics|livez|readyz|healthz|v1/(segment|synthesize|models|openapi\.json|docs))"), None),
    (re.compile(r"/v1/models/[^/]+"), "/v1/models/{name}"),
    (re.compile(r"/v1/models/[^/]+/legend"), "/v1/models/{name}/legend"),
    (re.compile(r"/v1/jobs"), None),
    (re.compile(r"/v1/jobs/[^/]+"), "/v1/jobs/{id}"),
    (re.compile(r"/v1/jobs/[^/]+/result"), "/v1/jobs/{id}/result"),
    (re.compile(r"/v1/admin/reload|/v2(/health/(live|ready))?"), None),
    (re.compile(r"/v2/models/[^/]+"), "/v2/models/{name}"),
    (re.compile(r"/v2/models/[^/]+/ready"), "/v2/models/{name}/ready"),
    (re.compile(r"/v2/models/[^/]+/infer"), "/v2/models/{name}/infer"),
    (re.compile(r"/ui(/.*)?"), "/ui"),
)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_LOOK_EVERY = 0.25  # seconds


@dataclass
class Trace:
    """What is learnt about one request while it is answered."""

    model: str = "none"
    stages: dict[str, float] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    trace_id: str = ""  # of OpenTelemetry, where it is configured

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; a stage that is entered twice adds up."""
        started = perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + perf_counter() - started

    def server_timing(self) -> str:
        """The stages as a `Server-Timing` header, in milliseconds."""
        return ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in list(self.stages.items()))


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def current_trace() -> Trace:
    """The trace of the request that is being answered; a fresh one outside of any."""
    return _current.get() or Trace()


def follow(trace: Trace) -> None:
    """Make this trace the current one, for everything the calling task does."""
    _current.set(trace)


def endpoint_of(path: str) -> str:
    """The route template of a path; whatever is none of ours is `other`."""
    for pattern, template in _TEMPLATES:
        if pattern.fullmatch(path):
            return template or path
    return "other"


def method_of(method: str) -> str:
    """The method; whatever no client of ours says is `other`."""
    return method if method in _METHODS else "other"


class Metrics:
    """Requests by endpoint, model and status; seconds by endpoint and stage; how full the gate is, what the device does and holds."""

    def __init__(self, *, devices: bool = False) -> None:
        self._folder = folder_of_counts()
        if self._folder is not None:
            reserve(self._folder)
        registry = CollectorRegistry()
        self._requests = Counter("fewpair_requests", "Answered requests.", ["endpoint", "method", "model", "status"], registry=registry)
        self._seconds = Histogram("fewpair_request_seconds", "Seconds to the answer.", ["endpoint"], buckets=_SECONDS, registry=registry)
        self._stages = Histogram(
            "fewpair_stage_seconds", "Seconds in a stage of an answer.", ["endpoint", "stage"], buckets=_SECONDS, registry=registry
        )
        self._images = Counter("fewpair_images", "Pictures, or tiles of large ones, that models were run on.", registry=registry)
        self._batches = Histogram("fewpair_batch_size", "Pictures or tiles in a run of a model.", buckets=_BATCHES, registry=registry)
        self._inside = Gauge("fewpair_requests_inside", "Admitted and not yet answered.", multiprocess_mode="livesum", registry=registry)
        self._waiting = Gauge("fewpair_requests_waiting", "Waiting for their turn.", multiprocess_mode="livesum", registry=registry)
        self._registry = registry
        self._gate: Gate | None = None
        self._seen = (0, 0)
        self._device = DeviceMemory(registry) if devices else None

    def watch(self, gate: Gate) -> None:
        """Report how full this gate is and what is run behind it."""
        self._gate = gate
        gate.on_run = self._ran

    def count(self, trace: Trace, *, path: str, method: str, status: int, seconds: float) -> None:
        """Note one answered request."""
        endpoint = endpoint_of(path)
        self._requests.labels(endpoint, method_of(method), trace.model, f"{status}").inc()
        self._seconds.labels(endpoint).observe(seconds)
        for stage, spent in list(trace.stages.items()):  # a run that nobody waits for may add to it
            self._stages.labels(endpoint, stage).observe(spent)

    def render(self) -> bytes:
        """The text that Prometheus reads, summed over the workers."""
        self._look()
        if self._device is not None:
            self._device.look()
        if self._folder is not None:
            return sum_up(self._folder)
        return generate_latest(self._registry)

    @asynccontextmanager
    async def kept_true(self) -> AsyncIterator[None]:
        """Look at the gate again and again: a scrape that another worker answers reads what this one has last seen."""
        task = asyncio.create_task(self._look_again_and_again())
        try:
            yield
        finally:
            task.cancel()

    async def _look_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            self._look()

    def _ran(self, images: int) -> None:
        self._images.inc(images)
        self._batches.observe(images)

    def _look(self) -> None:
        if self._gate is None or self._seen == (self._gate.inside, self._gate.waiting):
            return
        self._seen = (self._gate.inside, self._gate.waiting)
        for gauge, seen in zip((self._inside, self._waiting), self._seen, strict=True):
            gauge.set(seen)


class DeviceMemory:
    """What the NVIDIA driver says is used of each device's memory, by whomever; nothing where there is no driver."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._used, self._total = (
            Gauge(f"fewpair_device_memory_{what}_bytes", words, ["device"], multiprocess_mode="livemostrecent", registry=registry)
            for what, words in (("used", "Memory of the device in use, by all processes."), ("total", "Memory of the device."))
        )
        self._devices: list[Any] = []
        self._failing: set[int] = set()
        try:
            pynvml.nvmlInit()
            self._devices = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        except (OSError, pynvml.NVMLError) as error:
            logger.info("the memory of devices is not reported: %s", error)

    def look(self) -> None:
        """Ask the driver anew."""
        for index, device in enumerate(self._devices):
            used = total = math.nan  # what was true once would look like news; a series that workers share cannot be taken back
            try:
                memory = pynvml.nvmlDeviceGetMemoryInfo(device)
                used, total = memory.used, memory.total
                self._failing.discard(index)
            except pynvml.NVMLError as error:
                if index not in self._failing:
                    logger.warning("the memory of device %d is reported as NaN: %s", index, error)
                self._failing.add(index)
            self._used.labels(str(index)).set(used)
            self._total.labels(str(index)).set(total)
