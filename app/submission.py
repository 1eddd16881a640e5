"""A request becomes a record: store the files, record the job, enqueue its id, in order."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool

from app.errors import Refusal
from app.ids import is_id
from app.uploads import Form, Upload, display_name
from worker.compression import InvalidData, Recipe
from worker.ingest.sniff import recognise
from worker.jobs import (
    Artifact,
    ArtifactKind,
    Created,
    CreatedArtifact,
    Idempotency,
    Job,
    NewArtifact,
    NewJob,
    NotFound,
    Quota,
)
from worker.logs import about
from worker.services import Services
from worker.tracing import note

logger = logging.getLogger(__name__)

KINDS: Mapping[str, ArtifactKind] = {
    "model": "model",
    "calibration": "dataset",
    "evaluation": "dataset",
    "partner": "model",
}
"""The files of a job, by form field; each may be named by `FIELD_id` instead."""

FIELDS = (*(f"{name}_id" for name in KINDS), "recipe", "inputs", "name")
_KEY_CHARACTERS = 255
KEY_SCHEMA: dict[str, Any] = {
    "minLength": 1,
    "maxLength": _KEY_CHARACTERS,
    "pattern": "^[ -~]+$",
}
"""Of an Idempotency-Key."""
_NO_QUOTA = Quota()
_DATA_HINT = "send a .npz file of arrays by input name, a .npy file, or a .zip of images"

CreatedRecord = TypeVar("CreatedRecord", Created, CreatedArtifact)


@dataclass(frozen=True)
class Request:
    """A form that makes sense. `sources` are ids of artifacts, or files that came along."""

    name: str
    recipe: Recipe
    inputs: dict[str, Any] | None
    sources: dict[str, str | Upload]
    formats: dict[str, str]


async def submit(
    services: Services,
    owner_id: str,
    form: Form,
    *,
    recipe: Recipe | None = None,
    idempotency_key: str | None = None,
    quota: Quota = _NO_QUOTA,
) -> Job:
    """Check a form, keep its files and record its job. `recipe` stands in for the text field.

    Raises:
        Refusal, CompressionError, JobError: nothing of the form is kept.
    """
    request = await _check(services, owner_id, form, recipe)
    idempotency = _idempotency(idempotency_key, request)
    stored = await run_in_threadpool(_store, services, request)
    sources = {
        name: stored[name] if isinstance(source, Upload) else source
        for name, source in request.sources.items()
    }
    new = NewJob(
        owner_id=owner_id,
        name=request.name,
        recipe=request.recipe.model_dump(mode="json", by_alias=True),
        inputs=request.inputs,
        model=sources["model"],
        calibration=sources.get("calibration"),
        evaluation=sources.get("evaluation"),
        partner=sources.get("partner"),
    )
    record = partial(services.jobs.create, new, idempotency=idempotency, quota=quota)
    created = await _recorded(services, record, [file.key for file in stored.values()])
    with about(job_id=created.job.id):
        logger.info("job recorded")
        note(job_id=created.job.id)
    services.enqueue(created.job.id)
    return created.job


async def add_artifact(
    services: Services,
    owner_id: str,
    kind: ArtifactKind,
    upload: Upload,
    *,
    quota: Quota = _NO_QUOTA,
    upload_id: str | None = None,
) -> Artifact:
    """Keep an uploaded file, record it, and have a model looked into."""
    form = await _recognised(kind, upload)
    file = await run_in_threadpool(_commit, upload, form)
    record = partial(
        services.artifacts.create, owner_id, kind, file, quota=quota, upload_id=upload_id
    )
    created = await _recorded(services, record, [file.key])
    if created.inspect_job is not None:
        services.enqueue(created.inspect_job)
    return created.artifact


async def _recorded(
    services: Services, record: Callable[[], CreatedRecord], keys: Sequence[str]
) -> CreatedRecord:
    """Record what was stored under the keys; discard what the records have no use for."""
    try:
        created = await run_in_threadpool(record)
    except BaseException:
        await run_in_threadpool(services.discard, keys)
        raise
    await run_in_threadpool(services.discard, created.unused)
    return created


async def _check(
    services: Services, owner_id: str, form: Form, recipe: Recipe | None
) -> Request:
    """Everything that can be refused, before anything is kept; the cheap checks first."""
    sources: dict[str, str | Upload] = dict(form.files)
    names = {name: upload.name for name, upload in form.files.items()}
    for name, kind in KINDS.items():
        if identifier := form.fields.get(f"{name}_id"):
            if name in sources:
                raise _both(name)
            artifact = await _known(services, owner_id, kind, identifier)
            sources[name], names[name] = artifact.id, artifact.name
    if "model" not in sources:
        raise _no_model()
    recipe = recipe or Recipe.parse(form.fields.get("recipe", "").strip() or None)
    inputs = _inputs(form.fields.get("inputs", "").strip())
    formats = {
        name: await _recognised(KINDS[name], upload) for name, upload in form.files.items()
    }
    name = display_name(form.fields.get("name", "").strip() or names["model"])
    return Request(name, recipe, inputs, sources, formats)


async def _known(
    services: Services, owner_id: str, kind: ArtifactKind, identifier: str
) -> Artifact:
    unknown = Refusal(
        f"unknown_{kind}",
        f"there is no {kind} with the id {identifier[:60]!r}",
        hint=f"POST the file to /v1/{kind}s first, or send it along",
    )
    if not is_id(identifier):
        raise unknown
    try:
        return await run_in_threadpool(services.artifacts.get, owner_id, kind, identifier)
    except NotFound:
        raise unknown from None


def _both(name: str) -> Refusal:
    return Refusal(
        "ambiguous_field", f"{name} and {name}_id are both given", hint="send one of them"
    )


def _no_model() -> Refusal:
    return Refusal(
        "missing_model",
        "the request brings no model",
        hint="send the file as model, or the id of an uploaded one as model_id",
    )


def _inputs(text: str) -> dict[str, Any] | None:
    if not text:
        return None
    hint = 'an object by input name: {"x": {"shape": [1, 3, 224, 224], "dtype": "float32"}}'
    try:
        inputs = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(inputs, ensure_ascii=False).encode()  # half a character cannot be stored
    except (ValueError, RecursionError) as error:
        raise Refusal("invalid_inputs", f"inputs is not JSON: {error}", hint=hint) from None
    if not isinstance(inputs, dict) or not all(isinstance(v, dict) for v in inputs.values()):
        raise Refusal("invalid_inputs", "inputs is not an object of objects", hint=hint)
    return inputs


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


async def _recognised(kind: ArtifactKind, upload: Upload) -> str:
    find = recognise if kind == "model" else _recognise_data
    return await run_in_threadpool(find, upload.incoming.path)


def _recognise_data(path: Path) -> str:
    """Tell what a data file is, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(300)
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"PK\x03\x04"):
        name_bytes = int.from_bytes(head[26:28], "little")
        return "npz" if head[30 : 30 + name_bytes].endswith(b".npy") else "zip"
    what = "empty" if not head else "neither .npz nor .npy nor .zip"
    raise InvalidData(f"the data file is {what}", hint=_DATA_HINT)


def _idempotency(key: str | None, request: Request) -> Idempotency | None:
    """The key with a hash of all that the request asks for."""
    if key is None:
        return None
    if not 0 < len(key) <= _KEY_CHARACTERS or not key.isprintable():
        raise Refusal(
            "invalid_parameter",
            f"Idempotency-Key must be 1 to {_KEY_CHARACTERS} printable characters",
        )
    asked = {
        "name": request.name,
        "recipe": request.recipe.model_dump(mode="json"),
        "inputs": request.inputs,
        "sources": {
            name: source if isinstance(source, str) else source.incoming.sha256
            for name, source in request.sources.items()
        },
    }
    digest = sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    return Idempotency(key=key, request_sha256=digest)


def _store(services: Services, request: Request) -> dict[str, NewArtifact]:
    """Make objects of the files that came along; of all, or of none."""
    stored: dict[str, NewArtifact] = {}
    try:
        for name, source in request.sources.items():
            if isinstance(source, Upload):
                stored[name] = _commit(source, request.formats[name])
    except BaseException:
        services.discard([file.key for file in stored.values()])
        raise
    return stored


def _commit(upload: Upload, form: str) -> NewArtifact:
    kept = upload.incoming.commit()
    return NewArtifact(
        name=upload.name, format=form, bytes=kept.bytes, sha256=kept.sha256, key=kept.key
    )
