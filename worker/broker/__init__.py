"""The Celery app. A message says that a job waits; the database says whether that is true."""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from celery import Celery
from kombu.entity import Exchange, Queue

from worker.folders import make_private
from worker.settings import Settings
from worker.tracing import NO_CARRIER, Carrier, carrier

TASK = "modelpress.run"
QUEUE = "modelpress"  #: where versions before size classes sent their messages
_BACKLOG = 1000  # messages that wait for a dead broker; what is beyond is enqueued by workers
_EXPIRES_S = 120  # by then a worker has enqueued it again

logger = logging.getLogger(__name__)


def celery_app(settings: Settings) -> Celery:
    """Make the app that the settings describe; it connects when it is first used."""
    app = Celery("modelpress", set_as_current=False)
    app.conf.update(_COMMON)
    app.conf.update(
        worker_concurrency=settings.concurrency,
        # A worker subscribes to the queues of the size classes that it takes.
        task_queues=_queues(settings.size_classes),
        # A backstop: the job's supervisor holds the real limit.
        task_time_limit=settings.max_job_seconds + 120,
    )
    if settings.broker_url:
        app.conf.update(_REDIS, broker_url=settings.broker_url)
    else:
        app.conf.update(_folders(settings.data_dir / "broker"))
    return app


def _queues(classes: Sequence[str]) -> list[Queue]:
    return [_queue(name) for name in (QUEUE, *(f"{QUEUE}.{name}" for name in classes))]


def _queue(name: str) -> Queue:
    exchange = Exchange(name, type="direct")  # type: ignore[no-untyped-call]
    return Queue(name, exchange, routing_key=name)  # type: ignore[no-untyped-call]


_COMMON: dict[str, Any] = {
    "imports": ("worker.tasks",),
    "task_serializer": "json",
    "accept_content": ["json"],
    "result_backend": None,
    "task_ignore_result": True,
    # The lease in the database recovers a lost attempt, not the broker.
    "task_acks_late": False,
    "task_reject_on_worker_lost": False,
    "task_soft_time_limit": None,
    "task_track_started": False,
    "task_default_queue": QUEUE,
    "task_publish_retry": True,
    "task_publish_retry_policy": {
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0.1,
        "interval_max": 0.2,
    },
    "worker_pool": "prefork",
    # A killed pool process frees its slot after this long: no result of its task is awaited.
    "worker_lost_wait": 1.0,
    # Leak guards, looked at between jobs only; the process merely supervises a child.
    "worker_max_tasks_per_child": 100,
    "worker_max_memory_per_child": 400_000,
    # A lost broker must not kill a job.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_send_task_events": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_connection_timeout": 2,
    "broker_pool_limit": 10,
}

_REDIS: dict[str, Any] = {
    # Together these reserve exactly as many messages as there are slots. A prefetch count leaks
    # a slot for ever when the broker dies between delivery and ack (kombu 5.7.0).
    "worker_prefetch_multiplier": 0,
    "worker_disable_prefetch": True,
    "worker_enable_remote_control": True,  # a second way to notice a broken connection
    "broker_transport_options": {
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "retry_on_timeout": True,
        "health_check_interval": 10,
        "visibility_timeout": 3600,
        "global_keyprefix": "modelpress:",
    },
}


def _folders(root: Path) -> dict[str, Any]:
    """Messages as files: nothing to install, nothing to start."""
    messages, control = root / "messages", root / "control"
    return {
        "broker_url": "filesystem://localhost//",
        "broker_transport": "worker.broker.folders:Transport",
        "broker_transport_options": {
            "data_folder_in": str(messages),
            "data_folder_out": str(messages),
            "control_folder": str(control),
            "store_processed": False,
            "polling_interval": 0.25,
        },
        "worker_prefetch_multiplier": 1,
        "worker_enable_remote_control": False,
    }


def make_folders(settings: Settings) -> None:
    """Make the folders that the embedded broker needs."""
    for name in ("messages", "control"):
        make_private(settings.data_dir / "broker" / name)


class _Announced(NamedTuple):
    """A message to send."""

    job_id: str
    size_class: str | None
    asked_by: Carrier


class Publisher:
    """Sends ids of queued jobs without ever making the caller wait for the broker."""

    def __init__(self, app: Celery, *, size_class: Callable[[str], str]) -> None:
        self.app = app
        self._size_class = size_class
        options = app.conf.broker_transport_options
        if "socket_timeout" in options:  # a frozen broker must not hold up who only sends
            app.conf.broker_transport_options = {**options, "socket_timeout": 2}
        self._waiting: queue.Queue[_Announced] = queue.Queue(maxsize=_BACKLOG)
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def enqueue(self, job_id: str, *, size_class: str | None = None) -> None:
        """Hand over an id and return at once; what gets lost is enqueued again by a worker.

        Where the size class is not known it is looked up when the message is sent.
        """
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(_Announced(job_id, size_class, carrier()))
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._send, name="publish", daemon=True)
                self._thread.start()

    def backlog(self) -> int:
        """How many ids wait for a broker that is away or slow."""
        return self._waiting.qsize()

    def publish(
        self,
        job_id: str,
        *,
        size_class: str | None = None,
        asked_by: Carrier = NO_CARRIER,
    ) -> None:
        """Send an id now; raises whatever the broker's client raises."""
        queue = f"{QUEUE}.{size_class or self._size_class(job_id)}"
        self.app.send_task(
            TASK,
            args=[job_id],
            expires=_EXPIRES_S,
            queue=_queue(queue),
            headers=dict(asked_by),
        )

    def ping(self) -> None:
        """Raise if the broker cannot be reached within about two seconds."""
        with self.app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=2)

    def answers(self) -> bool:
        """Whether the broker can be reached."""
        try:
            self.ping()
        except Exception:
            return False
        return True

    def _send(self) -> None:
        while True:
            one = self._waiting.get()
            try:
                self.publish(one.job_id, size_class=one.size_class, asked_by=one.asked_by)
            except Exception as error:
                logger.warning("job %s is recorded but not enqueued: %s", one.job_id, error)


app = celery_app(Settings())
