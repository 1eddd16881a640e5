"""Traces of web and worker, as a collector receives them; and none where none are asked for."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.system.service import Service, wait_until

pytestmark = pytest.mark.system
JOB_ID = "modelpress.job_id"


@dataclass(frozen=True)
class Span:
    service: str
    name: str
    known: dict[str, str]
    trace: bytes
    id: bytes
    below: bytes


class Collector:
    """Takes spans by OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        spans = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                spans.extend(_spans(ExportTraceServiceRequest.FromString(body)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def _spans(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for resource in request.resource_spans:
        named = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                known = {pair.key: pair.value.string_value for pair in span.attributes}
                yield Span(
                    named["service.name"],
                    span.name,
                    known,
                    span.trace_id,
                    span.span_id,
                    span.parent_span_id,
                )


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


def test_a_job_is_traced_from_the_request_to_the_end_of_its_attempt(
    start: Callable[..., Service], collector: Collector
) -> None:
    service = start(traces_endpoint=collector.address)
    job_id = service.submit_digits()
    assert service.wait(job_id)["status"] == "succeeded"

    def found() -> dict[str, Span]:
        ours = [span for span in collector.spans if span.known.get(JOB_ID) == job_id]
        return {span.service: span for span in ours}

    wait_until(lambda: len(found()) == 2)
    asked, worked = found()["modelpress-web"], found()["modelpress-worker"]
    assert (asked.name, worked.name) == ("POST /v1/jobs", "attempt at compress")
    assert worked.known["modelpress.cause"] == "done"
    assert (worked.trace, worked.below) == (asked.trace, asked.id)
