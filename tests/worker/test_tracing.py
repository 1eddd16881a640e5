"""The trace of a request goes on in the worker, in the job that its message names."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from worker.jobs import NewArtifact, NewJob
from worker.services import Services, build_services
from worker.settings import Settings
from worker.tasks.attempt import run_next
from worker.tracing import Carrier, carrier_in

ME = "local"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What this process traces, from now on."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)  # it can be set but once
    return exporter


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    services = build_services(Settings(data_dir=tmp_path))
    services.migrate()
    yield services
    services.close()


def lost_job(services: Services) -> str:
    """A queued job whose model is gone, so that an attempt needs no child."""
    gone = NewArtifact(name="net", format="onnx", bytes=1, sha256="0" * 64, key="local/gone")
    return services.jobs.create(NewJob(owner_id=ME, name="x", recipe={}, model=gone)).job.id


def received(services: Services) -> tuple[str, Carrier]:
    """The next message, as a worker takes it from the broker."""
    with services.publisher.app.connection_for_read() as connection:
        messages = connection.SimpleQueue("modelpress.small")
        message = messages.get(timeout=10)
        message.ack()
        messages.close()
    return message.payload[0][0], carrier_in(message.headers)


def attempt_of(spans: InMemorySpanExporter, job_id: str) -> ReadableSpan:
    (found,) = (
        span
        for span in spans.get_finished_spans()
        if span.name == "attempt at compress" and span.attributes["modelpress.job_id"] == job_id
    )
    return found


def test_an_attempt_is_below_the_request_that_asked_for_it(
    services: Services, spans: InMemorySpanExporter
) -> None:
    job_id = lost_job(services)
    with trace.get_tracer("web").start_as_current_span("POST /v1/jobs") as request:
        services.enqueue(job_id)
    named, asked_by = received(services)
    assert named == job_id
    assert run_next(services, asked_by={named: asked_by}) == job_id
    attempt = attempt_of(spans, job_id)
    assert attempt.context.trace_id == request.get_span_context().trace_id
    assert attempt.parent.span_id == request.get_span_context().span_id


def test_a_message_traces_no_job_but_its_own(
    services: Services, spans: InMemorySpanExporter
) -> None:
    first = lost_job(services)
    with trace.get_tracer("web").start_as_current_span("POST /v1/jobs"):
        services.enqueue(lost_job(services))
    named, asked_by = received(services)
    assert run_next(services, asked_by={named: asked_by}) == first
    assert attempt_of(spans, first).parent is None


def test_without_a_trace_a_message_carries_nothing(services: Services) -> None:
    services.enqueue(lost_job(services))
    assert received(services)[1] == {}
