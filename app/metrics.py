"""Prometheus metrics: requests as they are answered, jobs as they are recorded when asked."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.security import Answered
from worker.jobs import SIZE_CLASSES, JobStatus, QueueFigures
from worker.services import Services

_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120, 600)


class Metrics:
    """The metrics of one web process."""

    def __init__(self, services: Services) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "modelpress_http_requests",
            "Answered requests.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "modelpress_http_request_seconds",
            "Seconds until a request was answered in full.",
            ["method", "route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._upload_bytes = Counter(
            "modelpress_upload_bytes", "Bytes of bodies received.", registry=self._registry
        )
        self._upload_seconds = Counter(
            "modelpress_upload_seconds", "Seconds of receiving them.", registry=self._registry
        )
        self._registry.register(_Jobs(services))

    def count(self, answered: Answered) -> None:
        method = answered.method if answered.method.isalpha() else "other"
        self._requests.labels(method, answered.route, str(answered.status)).inc()
        self._seconds.labels(method, answered.route).observe(answered.seconds)

    def received(self, size: int, *, seconds: float) -> None:
        """Count a body, or what came of it."""
        self._upload_bytes.inc(size)
        self._upload_seconds.inc(seconds)

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self._registry)


class _Jobs(Collector):
    """Read from the database at each scrape, so that every web process tells the same."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return ()  # else registering would already ask the database

    def collect(self) -> Iterator[GaugeMetricFamily]:
        counts = self._services.jobs.counts()
        jobs = GaugeMetricFamily("modelpress_jobs", "Jobs by status.", labels=["status"])
        for status in JobStatus:
            jobs.add_metric([status.value], counts.get(status, 0))
        yield jobs
        yield from self._queue()
        yield from self._last_hour()
        workers = self._services.workers.alive()
        yield GaugeMetricFamily("modelpress_workers", "Workers alive.", value=len(workers))
        slots = sum(worker.slots for worker in workers if not worker.draining)
        yield GaugeMetricFamily("modelpress_slots", "Jobs that can run at a time.", value=slots)

    def _queue(self) -> Iterator[GaugeMetricFamily]:
        depth = GaugeMetricFamily(
            "modelpress_queue_depth", "Jobs that wait for a worker.", labels=["size_class"]
        )
        age = GaugeMetricFamily(
            "modelpress_queue_oldest_seconds",
            "How long the first waiting job has waited.",
            labels=["size_class"],
        )
        found = self._services.figures.queue()
        for name in SIZE_CLASSES:
            queue = found.get(name, QueueFigures(depth=0, oldest_seconds=0))
            depth.add_metric([name], queue.depth)
            age.add_metric([name], queue.oldest_seconds)
        yield from (depth, age)

    def _last_hour(self) -> Iterator[GaugeMetricFamily]:
        endings = GaugeMetricFamily(
            "modelpress_endings_last_hour",
            "Attempts that ended in the last hour, by how.",
            labels=["cause"],
        )
        for cause, number in self._services.figures.endings().items():
            endings.add_metric([cause], number)
        stages = GaugeMetricFamily(
            "modelpress_stage_seconds",
            "Mean seconds of a stage over the attempts of the last hour.",
            labels=["stage"],
        )
        for stage, seconds in self._services.figures.stage_seconds().items():
            stages.add_metric([stage], seconds)
        memory = GaugeMetricFamily(
            "modelpress_child_memory_bytes",
            "Peak memory of the children of jobs that ended in the last hour.",
            labels=["stat"],
        )
        for stat, size in self._services.figures.child_memory().items():
            memory.add_metric([stat], size)
        yield from (endings, stages, memory)
