"""The HTTP API, as the command line uses it."""

import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import httpx

from app.cli import given
from app.cli.refusals import CannotDo

POLL_SECONDS = 1.0
#: A service that is started again meanwhile has lost nothing: wait for it.
PATIENCE_SECONDS = 60.0
TIMEOUT = httpx.Timeout(30.0, read=300.0, write=300.0)

#: What a report may name as a file of its own.
NAME = re.compile(r"front-\d+\.onnx")

Job = Mapping[str, Any]


class Service:
    """One service, by its address. Every failure is a CannotDo."""

    def __init__(self, address: str) -> None:
        key = os.environ.get("MODELPRESS_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            self._client = httpx.Client(base_url=address, headers=headers, timeout=TIMEOUT)
        except httpx.InvalidURL as error:
            raise self._unreachable(address, str(error)) from None
        self._address = address

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()

    def submit(
        self, files: Mapping[str, tuple[str, BinaryIO]], fields: Mapping[str, str]
    ) -> Job:
        """Send a model and its data, read piece by piece."""
        return self._json("POST", "/v1/jobs", files=files, data=fields)

    def job(self, job_id: str) -> Job:
        return self._json("GET", f"/v1/jobs/{_part(job_id)}")

    def cancel(self, job_id: str) -> Job:
        return self._json("POST", f"/v1/jobs/{_part(job_id)}/cancel")

    def follow(self, job_id: str) -> Iterator[Job]:
        """The job, again and again until it has ended; at least once."""
        lost_since: float | None = None
        while True:
            try:
                job = self.job(job_id)
            except CannotDo as problem:
                lost_since = lost_since or time.monotonic()
                is_passing = problem.code in (
                    "server_unreachable",
                    "unavailable",
                    "not_serving",
                )
                if not is_passing or time.monotonic() - lost_since > PATIENCE_SECONDS:
                    raise
            else:
                lost_since = None
                yield job
                if job["finished_at"] is not None:
                    return
            time.sleep(POLL_SECONDS)

    def report(self, job_id: str) -> Mapping[str, Any]:
        return self._json("GET", f"/v1/jobs/{_part(job_id)}/report")

    def fetch(self, job_id: str, name: str, target: Path) -> None:
        """Store a file of the result, piece by piece."""
        address = f"/v1/jobs/{_part(job_id)}/{name}"
        try:
            with self._client.stream("GET", address) as response:
                if response.is_error:
                    response.read()
                    raise _refusal(response)
                with target.open("wb") as file:
                    for piece in response.iter_bytes(1 << 20):
                        file.write(piece)
        except httpx.HTTPError as error:
            raise self._unreachable(self._address, str(error)) from error

    def _json(self, method: str, path: str, **content: Any) -> Mapping[str, Any]:  # noqa: ANN401
        try:
            response = self._client.request(method, path, **content)
        except httpx.HTTPError as error:
            raise self._unreachable(self._address, str(error)) from error
        if response.is_error:
            raise _refusal(response)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if isinstance(answer, dict):
            return answer
        raise self._unreachable(self._address, "it answers, but is no modelpress")

    @staticmethod
    def _unreachable(address: str, reason: str) -> CannotDo:
        return CannotDo(
            f"the service at {address} cannot be reached: {reason}",
            code="server_unreachable",
            hint="start it with `modelpress serve`, or name another with --server",
        )


def results(service: Service, job_id: str, out: Path) -> list[str]:
    """Fetch the files of a job into a folder, all or none; their names.

    Raises:
        CannotDo: the job has no result, or the service is gone.
    """
    report = service.report(job_id)
    addresses = {"report.json": "report", "report.html": "report.html", "model.onnx": "model"}
    named = [str(one.get("file") or "") for one in report.get("candidates", [])]
    addresses |= {name: f"files/{name}" for name in named if NAME.fullmatch(name)}
    if service.job(job_id)["links"]["bundle"]:
        addresses["bundle.zip"] = "files/bundle.zip"
    with tempfile.TemporaryDirectory(prefix=".modelpress-", dir=out) as folder:
        for name, address in addresses.items():
            service.fetch(job_id, address, Path(folder) / name)
        if (Path(folder) / "model.onnx").stat().st_size < report["after"]["bytes"]:
            addresses["model.onnx.data"] = "files/model.onnx.data"
            service.fetch(job_id, "files/model.onnx.data", Path(folder) / "model.onnx.data")
        for stale in (path for pattern in given.STALE for path in out.glob(pattern)):
            stale.unlink()
        for name in addresses:
            (Path(folder) / name).replace(out / name)
    return sorted(addresses)


def _part(job_id: str) -> str:
    """An id as a part of an address.

    Raises:
        CannotDo: it cannot be one.
    """
    if re.fullmatch(r"[A-Za-z0-9-]{1,64}", job_id):
        return job_id
    raise CannotDo(f"{job_id[:80]!r} is no id of a job", code="not_found", hint="copy it whole")


def _refusal(response: httpx.Response) -> CannotDo:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict) and "code" in problem:
        return CannotDo.from_problem(problem)
    return CannotDo(
        f"the service answers {response.status_code} {response.reason_phrase}",
        code="server_unreachable",
        hint="check the address: is it a modelpress service?",
    )
