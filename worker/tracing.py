"""OpenTelemetry traces: on where an endpoint is set and the extra `otel` is installed."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.trace import TracerProvider

_PATIENCE_S = 2  # a collector that is away holds no job for longer

#: The headers that carry a span to another process, by the W3C's Trace Context.
Carrier = Mapping[str, str]
NO_CARRIER: Carrier = MappingProxyType({})

logger = logging.getLogger(__name__)


def tracer_provider(endpoint: str | None, *, part: str, at_once: bool) -> TracerProvider | None:
    """Make what sends the spans of one part of the service; None where traces are off.

    `at_once` sends every span when it ends, for processes that end without notice.
    """
    if not endpoint:
        return None
    try:
        # The extra: most installations have no use for it.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider as Provider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import (  # noqa: PLC0415
            BatchSpanProcessor,
            SimpleSpanProcessor,
        )
    except ImportError:
        logger.warning("no traces are sent: pip install 'modelpress[otel]'")
        return None
    provider = Provider(resource=Resource.create({"service.name": f"modelpress-{part}"}))
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_PATIENCE_S)
    processor = SimpleSpanProcessor if at_once else BatchSpanProcessor
    provider.add_span_processor(processor(exporter))
    return provider


def trace_jobs(endpoint: str | None) -> None:
    """Send the spans of this worker process."""
    provider = tracer_provider(endpoint, part="worker", at_once=True)
    if provider is not None:
        trace.set_tracer_provider(provider)


def carrier() -> Carrier:
    """Give the headers of the span that is open; none where traces are off."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


def carrier_in(headers: Mapping[str, Any]) -> Carrier:
    """Pick what `carrier` gave from the headers of a message."""
    return {
        name: str(headers[name])
        for name in propagate.get_global_textmap().fields
        if headers.get(name)
    }


@contextmanager
def span_of_attempt(
    job_id: str, *, attempt: int, kind: str, asked_by: Carrier = NO_CARRIER
) -> Iterator[None]:
    """One attempt as a span, below the one that asked; nothing where traces are off."""
    known: dict[str, str | int] = {
        "modelpress.job_id": job_id,
        "modelpress.attempt": attempt,
        "modelpress.kind": kind,
    }
    tracer = trace.get_tracer("modelpress")
    context = propagate.extract(asked_by)
    with tracer.start_as_current_span(f"attempt at {kind}", context, attributes=known):
        yield


def note(**found: str) -> None:
    """Add to the span that is open: `job_id`, `cause`."""
    span = trace.get_current_span()
    span.set_attributes({f"modelpress.{name}": value for name, value in found.items()})
