"""OpenTelemetry: the trace id of a request, and a last flush. BentoML opens the spans and exports them."""

from __future__ import annotations

import asyncio
import threading

import opentelemetry.trace
from bentoml._internal.configuration.containers import BentoMLContainer  # there is no public flush

_FLUSH_SECONDS = 3.0


def trace_id() -> str:
    """The id of the request's span; empty where the trace is not sampled."""
    context = opentelemetry.trace.get_current_span().get_span_context()
    return format(context.trace_id, "032x") if context.is_valid and context.trace_flags.sampled else ""


async def flush() -> None:
    """Export the spans that are still buffered; the worker is ended by a signal, which skips exit handlers."""
    exporting = threading.Thread(target=BentoMLContainer.tracer_provider.get().shutdown, daemon=True)
    exporting.start()
    await asyncio.to_thread(exporting.join, _FLUSH_SECONDS)
