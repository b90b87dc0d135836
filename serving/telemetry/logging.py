"""One log line for each request, as text or as JSON, and in JSON everything else that is logged too."""

from __future__ import annotations

import logging
from typing import Any

import opentelemetry.trace
from pythonjsonlogger.json import JsonFormatter

from serving.settings import Settings
from serving.telemetry.metrics import Trace

_requests = logging.getLogger("fewpair.requests")
_CONFIGURED = ("", "bentoml", "uvicorn.error", "circus")  # the loggers that BentoML gives handlers
_FIELDS = ["levelname", "name", "message", "process"]
_NAMES = {"levelname": "level", "name": "logger", "process": "pid", "exc_info": "traceback"}
HEALTH = frozenset({"/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready"})


def set_up(settings: Settings) -> None:
    """Log the server's own messages, and requests and JSON where the settings say so."""
    logging.getLogger("fewpair.serving").setLevel(logging.INFO)
    if settings.access_log or settings.log == "json":
        _requests.setLevel(logging.INFO)
    if settings.log == "json":
        formatter = _JsonLines(_FIELDS, timestamp="time", rename_fields=_NAMES, json_ensure_ascii=False)
        for handler in [handler for name in _CONFIGURED for handler in logging.getLogger(name).handlers]:
            handler.setFormatter(formatter)


class _JsonLines(JsonFormatter):
    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Keep the documented fields: BentoML adds some of its own to every record, a request id among them."""
        kept = {name: log_data[name] for name in ("time", *_NAMES.values(), "message") if name in log_data}
        return {**kept, "level": log_data["level"].lower(), **log_data.get("fields", {})}


def log_request(trace: Trace) -> None:
    """Log one answered request, without its pictures, query and headers; a probe only where it fails."""
    if trace.endpoint in HEALTH | {"/metrics"} and trace.status < 400:
        return
    named = ("request_id", "endpoint", "method", "model", "status")
    fields: dict[str, Any] = {name: getattr(trace, name) for name in named}
    fields["seconds"] = round(trace.seconds, 4)
    fields["stages"] = {name: round(spent, 4) for name, spent in list(trace.stages.items())}
    fields |= {"bytes_in": trace.bytes_in, "bytes_out": trace.bytes_out}
    span = opentelemetry.trace.get_current_span().get_span_context()  # BentoML opens the spans and exports them
    if span.is_valid and span.trace_flags.sampled:
        fields["trace_id"] = format(span.trace_id, "032x")
    timed = " ".join(f"{name}={spent:.3f}" for name, spent in fields["stages"].items())
    line = "{method} {endpoint} {model} {status} {seconds:.3f} s {bytes_in}+{bytes_out} bytes {request_id}"
    _requests.info("%s %s", line.format(**fields), timed, extra={"fields": fields})
