"""A child that was taken over publishes nothing but a model that is what it says."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from onnx import parser

from worker.isolation import Cause, Ended, Limits, Request, remove_folder, run_child

GIB = 1 << 30
LIMITS = Limits(wall_seconds=20, cpu_seconds=20, memory_bytes=GIB, disk_bytes=GIB // 4)
HEADER = '<ir_version: 9, opset_import: ["" : 17]>'
GOOD = "g (float[2] x) => (float[2] y) { y = Relu(x) }"

Publish = Callable[..., Ended]


def model(text: str) -> bytes:
    return parser.parse_model(HEADER + text).SerializeToString()


@pytest.fixture
def publish(tmp_path: Path) -> Iterator[Publish]:
    """Have a child publish these files for an upload of two numbers, and say how that ended."""
    folder = tmp_path / "job"
    folder.mkdir()
    upload = tmp_path / "upload.onnx"
    upload.write_bytes(model(GOOD))

    def publish(
        content: bytes,
        *,
        stated: int | None = None,
        limits: Limits = LIMITS,
        holes: int = 0,
        **more: bytes,
    ) -> Ended:
        files = {"model.onnx": content, **{f"{name}.onnx": data for name, data in more.items()}}
        size = len(content) if stated is None else stated
        listed = [f"out/{name}" for name in (*files, "0", "1")]
        result = {"ok": True, "report": {"after": {"bytes": size}}, "files": listed}
        (folder / "prepared").mkdir()
        for name, data in files.items():
            (folder / "prepared" / name).write_bytes(data)
        program = (
            "from worker.isolation import enter\nfrom pathlib import Path\n"
            "enter(sys.argv[1:4])\nPath('prepared').rename('out')\n"
            f"for n in range(2): open(f'out/{{n}}', 'wb').truncate({holes})\n"
            f"Path('result.json').write_text({json.dumps(json.dumps(result))})\n"
        )
        return run_child(
            Request(kind="compress", model=str(upload)),
            folder,
            limits=limits,
            program=program,
            on_message=lambda _: None,
            stop=lambda: None,
            measuring_lock=tmp_path / "lock",
        )

    yield publish
    remove_folder(folder)


def test_a_model_with_the_interface_of_the_upload_passes(publish: Publish) -> None:
    ended = publish(model("g (float[2] x) => (float[2] y) { y = Abs(x) }"))
    assert ended.cause is Cause.DONE, (ended.error, ended.stderr)
    assert ended.result is not None


OTHERS = {
    "no model": (b"MZ" + bytes(1000), "model.onnx"),
    "nothing": (b"", "model.onnx"),
    "another input": (model("g (float[2] z) => (float[2] y) { y = Relu(z) }"), "x, z"),
    "another size": (model("g (float[3] x) => (float[3] y) { y = Relu(x) }"), "x"),
    "another type": (model("g (double[2] x) => (double[2] y) { y = Relu(x) }"), "x"),
    "one more output": (
        model("g (float[2] x) => (float[2] y, float[2] z) { y = Relu(x) z = Abs(x) }"),
        "z",
    ),
    "an operator that nobody knows": (
        model("g (float[2] x) => (float[2] y) { y = Backdoor(x) }"),
        "Backdoor",
    ),
    "a run that fails": (
        model(
            "g (float[2] x) => (float[2] y) <int64[1] s = {7}> "
            "{ n = Shape(x) m = Sub(s, n) z = Concat<axis=0>(m, m) y = Reshape(x, z) }"
        ),
        "Reshape",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_such_model_is_not_published(publish: Publish, kind: str) -> None:
    content, named = OTHERS[kind]
    ended = publish(content)
    assert (ended.cause, ended.result) == (Cause.FAILED, None)
    assert ended.error is not None
    assert ended.error["code"] == "result_refused"
    assert named in ended.error["message"]
    assert ended.error["hint"]


def test_a_size_that_is_not_the_files_is_refused(publish: Publish) -> None:
    ended = publish(model(GOOD), stated=7)
    assert ended.error is not None
    assert ended.error["code"] == "result_refused"


def test_files_full_of_holes_are_refused(publish: Publish) -> None:
    """On disk they are nothing; the store would be full of them."""
    limits = Limits(wall_seconds=20, cpu_seconds=20, memory_bytes=GIB, disk_bytes=1 << 20)
    ended = publish(model(GOOD), holes=900_000, limits=limits)
    assert ended.error is not None
    assert ended.error["code"] == "result_refused"


def test_every_model_of_a_front_is_looked_at(publish: Publish) -> None:
    ended = publish(model(GOOD), **{"front-1": b"no model"})
    assert ended.error is not None
    assert "front-1.onnx" in ended.error["message"]


def test_a_result_that_never_ends_is_a_time_limit(publish: Publish) -> None:
    endless = """g (float[2] x) => (float[2] y) <int64 n = {9223372036854775807}, bool go = {1}>
        { y = Loop (n, go, x) <body = again (int64 i, bool c, float[2] v) =>
          (bool d, float[2] w) { d = Identity (c)  w = Sin (v) }> }"""
    limits = Limits(wall_seconds=1, cpu_seconds=60, memory_bytes=GIB, disk_bytes=GIB // 4)
    ended = publish(model(endless), limits=limits)
    assert ended.cause is Cause.TIME_LIMIT, (ended.error, ended.stderr)
    assert ended.error is not None
    assert ended.error["code"] == "time_limit"
    assert ended.result is None
