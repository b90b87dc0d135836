"""Traces that a server sends to a collector: their requests, their line in the log, none lost at the end."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.serving.factory import write_model
from tests.serving.pictures import file_of, ramp
from tests.serving.process import running_server

SAMPLED, UNSAMPLED, PROBED = "a" * 32, "b" * 32, "c" * 32
CALLER = "d" * 16
OPTIONS = (
    "services.fewpair.tracing.exporter_type=otlp services.fewpair.tracing.sample_rate=0.0 "
    "services.fewpair.tracing.otlp.protocol=http "
    'services.fewpair.tracing.otlp.endpoint="{url}" '
    'services.fewpair.tracing.excluded_urls="livez,readyz,healthz,metrics,v2/health"'
)


class Collector(BaseHTTPRequestHandler):
    """Keeps the spans that it is sent as OTLP over HTTP."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        sent = ExportTraceServiceRequest.FromString(body)
        self.server.paths.add(self.path)
        self.server.spans += [
            span for resource in sent.resource_spans for scope in resource.scope_spans for span in scope.spans
        ]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What a server that was asked four times, and told to stop at once, has sent to its collector and written down."""
    folder = tmp_path_factory.mktemp("traces")
    write_model(folder / "models" / "tiny")
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        collector.spans, collector.paths = [], set()
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        variables = {
            "FEWPAIR_LOG": "json",
            "BENTOML_CONFIG_OPTIONS": OPTIONS.format(url=f"http://127.0.0.1:{collector.server_port}/v1/traces"),
            "OTEL_BSP_SCHEDULE_DELAY": "60000",  # milliseconds: what arrives was sent because the server stopped
        }
        with running_server(folder / "models", folder / "home", "--no-ui", **variables) as server:
            for trace, flags in ((SAMPLED, "01"), (UNSAMPLED, "00"), (None, None)):
                headers = {
                    "X-Request-ID": str(flags),
                    **({"traceparent": f"00-{trace}-{CALLER}-{flags}"} if trace else {}),
                }
                assert (
                    httpx.post(f"{server.url}/segment", files={"image": file_of(ramp())}, headers=headers).status_code
                    == 200
                )
            assert (
                httpx.get(f"{server.url}/readyz", headers={"traceparent": f"00-{PROBED}-{CALLER}-01"}).status_code
                == 200
            )
            assert server.stop() == 0
            log = server.log.read_text()
        collector.shutdown()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    requests = {line["request_id"]: line for line in lines if line["logger"] == "fewpair.requests"}
    return collector, requests, log


def test_the_line_of_a_sampled_request_names_its_callers_trace_and_others_name_none(told):
    _, requests, log = told
    assert requests["01"]["trace_id"] == SAMPLED
    assert ["trace_id" in requests[request] for request in ("00", "None")] == [False, False]
    assert "Traceback" not in log


def test_spans_of_sampled_requests_continue_their_callers_trace_and_the_last_are_sent_before_the_end(told):
    collector, _, _ = told
    assert collector.paths == {"/v1/traces"}
    assert {span.trace_id.hex() for span in collector.spans} == {SAMPLED}, (
        "none of what is not sampled, and none of probes"
    )
    (whole,) = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert (whole.name, whole.parent_span_id.hex()) == ("POST /segment", CALLER)
    assert {one.key: one.value.int_value for one in whole.attributes}["http.status_code"] == 200
