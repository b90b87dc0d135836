"""The traces of requests: BentoML opens the spans and sends them; this names a request's, and has the last sent before the end."""

from __future__ import annotations

import asyncio
import threading

import opentelemetry.trace
from bentoml._internal.configuration.containers import BentoMLContainer

_LAST = 3.0  # seconds that a server which stops gives whoever collects spans


def trace_id() -> str:
    """Of the span that is open for the request, so that its line in the log leads to it; empty where that trace is not sampled."""
    context = opentelemetry.trace.get_current_span().get_span_context()
    return format(context.trace_id, "032x") if context.is_valid and context.trace_flags.sampled else ""


async def send_the_last() -> None:
    """Send the spans that wait to be sent in bulk. A worker ends by a signal, so that nobody would do it at its exit."""
    sending = threading.Thread(target=BentoMLContainer.tracer_provider.get().shutdown, daemon=True)
    sending.start()
    await asyncio.to_thread(sending.join, _LAST)
