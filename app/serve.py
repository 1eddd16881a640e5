"""`modelpress serve`: web, worker and broker as one command.

A small parent that touches no upload: it prepares the data folder, starts two processes, starts
them again when they die and stops them in good order.
"""

import errno
import fcntl
import ipaddress
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

from app.processes import KeptAlive
from worker.folders import make_private
from worker.isolation import missing_layers, self_test
from worker.jobs import migrate
from worker.logs import set_up_logging
from worker.services import build_services
from worker.settings import Settings

_BIND_PATIENCE_SECONDS = 10
_WEB_STOP_SECONDS = 10
_WORKER_STOP_MARGIN_SECONDS = 15
_TICK_SECONDS = 0.1

logger = logging.getLogger(__name__)


class CannotServe(Exception):
    """What is in the way, and what to do about it."""


def serve(settings: Settings) -> int:
    """Run the service until SIGTERM or SIGINT; the exit code of the command."""
    os.umask(0o077)  # whatever the service writes is for its own user
    set_up_logging(settings.log_format)
    try:
        with _only_instance(settings.data_dir):
            migrate(settings.database)
            _refuse_open(settings)
            _test_sandbox(settings)
            with _listening(settings) as listener:
                return _run(settings, listener)
    except CannotServe as error:
        sys.stderr.write(f"modelpress serve: {error}\n")
        return 2


def _refuse_open(settings: Settings) -> None:
    """Without keys, whoever reaches the port may do everything."""
    if settings.allow_open:
        return
    try:
        found = socket.getaddrinfo(settings.host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise CannotServe(f"{settings.host} is not an address: {error.strerror}") from None
    if all(ipaddress.ip_address(address[4][0]).is_loopback for address in found):
        return
    with closing(build_services(settings, pooled=False)) as services:
        if services.keys.any_live():
            return
    raise CannotServe(
        f"{settings.host} can be reached from other machines, and there are no keys: "
        "make one with `modelpress keys create NAME`, bind 127.0.0.1, or set "
        "MODELPRESS_ALLOW_OPEN=1 where something else guards the port"
    )


def _test_sandbox(settings: Settings) -> None:
    """Attack the sandbox once, tell which layers hold, and refuse where they do not suffice."""
    tested = self_test(settings.sandbox)
    for line in tested.lines():
        logger.info("sandbox: %s", line)
    lacking = missing_layers(tested.layers) or tested.open()
    if settings.sandbox == "required" and lacking:
        raise CannotServe(
            f"sandbox=required, and this machine lacks {', '.join(lacking)}: "
            "use Linux with Landlock and seccomp, or set MODELPRESS_SANDBOX=auto"
        )


@contextmanager
def _only_instance(data_dir: Path) -> Iterator[None]:
    """Hold the lock of the data folder."""
    try:
        lock = (make_private(data_dir) / "serve.lock").open("w")
    except OSError as error:
        raise CannotServe(f"{data_dir} cannot be used: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotServe(
                f"another instance uses {data_dir}: stop it, or choose another --data-dir"
            ) from None
        yield


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """Open the port here, so that requests wait, and are not refused, while web restarts."""
    patience = time.monotonic() + _BIND_PATIENCE_SECONDS
    while True:
        try:
            listener = _bind(settings)
            break
        except OSError as error:
            # The web process of an instance that was killed may need a moment to go.
            if error.errno == errno.EADDRINUSE and time.monotonic() < patience:
                time.sleep(0.2)
                continue
            reason = os.strerror(error.errno or 0)
            raise CannotServe(
                f"port {settings.port} of {settings.host} cannot be bound ({reason})"
            ) from None
    with listener:
        yield listener


def _bind(settings: Settings) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(
        settings.host, settings.port, type=socket.SOCK_STREAM
    )[0]
    return socket.create_server(address, family=family, backlog=512)


def _run(settings: Settings, listener: socket.socket) -> int:
    web, worker = _processes(settings, listener)
    stops: list[int] = []

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stops.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    for process in (web, worker):
        process.start()
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    sys.stdout.write(f"modelpress serves http://{shown}:{port} from {settings.data_dir}\n")
    sys.stdout.flush()
    healthy = True
    while healthy and not stops:
        time.sleep(_TICK_SECONDS)
        healthy = web.tend() and worker.tend()
    logger.info("modelpress stops; a second signal stops it at once")
    _stop(web, worker, stops, grace_seconds=settings.stop_grace_seconds)
    return 0 if healthy else 1


def _processes(settings: Settings, listener: socket.socket) -> tuple[KeptAlive, KeptAlive]:
    environment = {
        **os.environ,
        **settings.environment(),
        "ORT_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
    }
    descriptor = listener.fileno()
    web = KeptAlive(
        "web",
        [sys.executable, "-m", "app.web", str(descriptor)],
        environment=environment,
        pass_fds=[descriptor],
        restarts=settings.max_restarts,
    )
    worker = KeptAlive(
        "worker",
        [
            *(sys.executable, "-m", "celery", "-A", "worker.broker", "worker"),
            *("--loglevel", "INFO", "--without-gossip", "--without-mingle"),
        ],
        environment=environment,
        restarts=settings.max_restarts,
    )
    return web, worker


def _stop(web: KeptAlive, worker: KeptAlive, stops: list[int], *, grace_seconds: float) -> None:
    """Stop in good order; a second signal stops at once."""
    now = time.monotonic()
    patience = {
        web: now + _WEB_STOP_SECONDS,
        worker: now + grace_seconds + _WORKER_STOP_MARGIN_SECONDS,
    }
    for process in patience:
        process.terminate()
    for process, end in patience.items():
        while not process.ended() and time.monotonic() < end and len(stops) < 2:
            time.sleep(_TICK_SECONDS)
        process.kill()
