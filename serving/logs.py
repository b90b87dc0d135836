"""What the server writes down: one line a request, as text or as JSON, and in JSON whatever else it says too."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from serving.metrics import Trace
from serving.settings import Settings

_requests = logging.getLogger("fewpair.requests")
_CONFIGURED = ("", "bentoml", "uvicorn.error", "circus")  # the loggers that BentoML gives handlers
_PROBES = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})  # asked every few seconds: written down only where they fail


def set_up(settings: Settings) -> None:
    """Write requests down where that was asked for, and everything as JSON where that was."""
    if settings.access_log or settings.log == "json":
        _requests.setLevel(logging.INFO)
    if settings.log == "json":
        for name in _CONFIGURED:
            for handler in logging.getLogger(name).handlers:
                handler.setFormatter(JsonLines())


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message, and the fields that came along as `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        told: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False, default=str)


def write_down(trace: Trace, *, request_id: str, endpoint: str, path: str, method: str, status: int, seconds: float) -> None:
    """One answered request. What was in the pictures, the query and the headers is nobody's business."""
    if not _requests.isEnabledFor(logging.INFO) or (path in _PROBES and status < 400):
        return
    stages = {name: round(spent, 4) for name, spent in list(trace.stages.items())}
    fields: dict[str, Any] = {
        "request_id": request_id,
        "endpoint": endpoint,
        "method": method,
        "model": trace.model,
        "status": status,
        "seconds": round(seconds, 4),
        "stages": stages,
        "bytes_in": trace.bytes_in,
        "bytes_out": trace.bytes_out,
    }
    if trace.trace_id:
        fields["trace_id"] = trace.trace_id
    timed = " ".join(f"{name}={spent:.3f}" for name, spent in stages.items())
    sentence = f"{method} {endpoint} {trace.model} {status} {seconds:.3f} s {trace.bytes_in}+{trace.bytes_out} bytes {request_id} {timed}"
    _requests.info("%s", sentence.rstrip(), extra={"fields": fields})
