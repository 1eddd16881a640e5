"""What schemathesis cannot make from the document: files and recipes that are what they say.

Loaded by schemathesis.toml.
"""

import json
from typing import Any

import httpx
import schemathesis
from hypothesis import strategies as st
from onnx import parser
from schemathesis import Case, HookContext, SerializationContext

# Of bytes below 128 only: schemathesis' multipart bodies are text.
NET = '<ir_version: 8, opset_import: ["" : 17]> n (float[4] x) => (float[4] y) { y = Relu(x) }'
MODEL = parser.parse_model(NET).SerializeToString().decode("ascii")
ZIP = "PK\x03\x04" + "\0" * 26
RECIPES = (
    "auto",
    json.dumps({"passes": [{"method": "magnitude_pruning", "amount": 0.5}]}),
    json.dumps({"goal": {"objective": "size", "max_drop": 0.05}, "seed": 3}),
)

ON_ENDED_JOBS = ("/model", "/report", "/report.html", "/files/{name}", "/retry", "/events")

schemathesis.openapi.format("model", st.just(MODEL))
schemathesis.openapi.format("dataset", st.just(ZIP))
schemathesis.openapi.format("recipe", st.sampled_from(RECIPES))
schemathesis.openapi.format("inputs", st.just('{"x": {"shape": [1, 1, 8, 8]}}'))


@schemathesis.serializer("application/offset+octet-stream")
def as_it_is(context: SerializationContext, value: Any) -> bytes:
    return str(value).encode()


@schemathesis.hook
def filter_case(context: HookContext, case: Case) -> bool:
    """Whatever is put into a form's `name` is text, so that there is no wrong type for it."""
    return not isinstance(case.body, dict) or isinstance(case.body.get("name", ""), str)


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """Have a request that is to be accepted ask for something that there is."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if "Upload-Length" in case.headers:
        case.headers["Upload-Length"] = "65"
    if "upload_id" in case.path_parameters:
        case.path_parameters["upload_id"] = announced(case)
        if "Upload-Offset" in case.headers:
            case.headers["Upload-Offset"] = "0"
            case.headers.pop("Upload-Checksum", None)
    if "name" in case.path_parameters:
        case.path_parameters["name"] = "bundle.zip"
    if case.path.endswith(ON_ENDED_JOBS):
        wanted = "failed" if case.path.endswith("/retry") else "succeeded"
        jobs = httpx.get(f"{address(case)}/v1/jobs", params={"status": wanted}).json()["items"]
        case.path_parameters |= {"job_id": jobs[0]["id"]} if jobs else {}


def address(case: Case) -> str:
    return case.operation.schema.get_base_url().rstrip("/")


def announced(case: Case) -> str:
    """The id of a new upload."""
    headers = {
        "Tus-Resumable": "1.0.0",
        "Upload-Length": "1000000",
        "Upload-Metadata": "kind bW9kZWw=",
    }
    answer = httpx.post(f"{address(case)}/v1/uploads", headers=headers)
    return answer.headers["location"].rpartition("/")[2]
