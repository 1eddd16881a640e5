"""Programs of further children, which only read: measure a model, check a result.

Only what running needs is imported: memory is measured here, and a check must be quick.
"""

import sys
from pathlib import Path
from typing import Any

from worker.isolation import Channel, enter

#: A zip: ONNX with its data, or TorchScript. Neither tells its interface at a glance.
ARCHIVE = b"PK"
#: What the job fed its last measurement, in its folder.
FEED = "feed.npz"


def measure() -> int:
    """Tell the peak memory of this process: with a model run once, or of onnxruntime alone."""
    channel = enter(sys.argv[1:4])
    import onnxruntime as ort  # noqa: F401, PLC0415 - after the seal; its own memory is told too

    for model in sys.argv[4:5]:
        session = _session(model)
        session.run(None, _feed(sys.argv[5]) if len(sys.argv) > 5 else _zeros(session))
    status = Path("/proc/self/status").read_text()
    peak = status.partition("VmHWM:")[2].split()[0]
    channel.tell(peak_memory_bytes=1024 * int(peak))
    return 0


def _feed(path: str) -> dict[str, Any]:
    import numpy as np  # noqa: PLC0415 - after the seal

    with np.load(path) as arrays:
        return {name[1:]: arrays[name] for name in arrays.files}


def _zeros(session: Any) -> dict[str, Any]:  # noqa: ANN401 - onnxruntime has no types
    """The smallest feed that the model's own interface allows."""
    import numpy as np  # noqa: PLC0415 - after the seal

    words = {"float": "float32", "double": "float64", "string": "str"}
    feed = {}
    for port in session.get_inputs():
        word = port.type.removeprefix("tensor(").removesuffix(")")
        shape = [size if isinstance(size, int) else 1 for size in port.shape]
        feed[port.name] = np.zeros(shape, words.get(word, word))
    return feed


def check() -> int:
    """Tell that these models load, run and have the upload's interface, or what is wrong."""
    channel = enter(sys.argv[1:4])
    import onnxruntime as ort  # noqa: F401, PLC0415 - after the seal, while the job is finished

    task = channel.task()
    models, upload = task["check"], channel.folder / task["upload"]
    try:
        wrong = _complaint(channel, models, upload)
    except Exception as error:  # whatever a file that means harm brings about
        wrong = f"{type(error).__name__}: {error}"
    channel.tell(**({"checked": models} if wrong is None else {"refused": wrong[:300]}))
    return 0


def _complaint(channel: Channel, models: list[str], upload: Path) -> str | None:
    with upload.open("rb") as file:
        plain = file.read(2) != ARCHIVE
    wanted = _interface(_upload_session(upload)) if plain else None
    feed = channel.folder / FEED
    for name in models:
        session = _session(str(channel.folder / name))
        has = _interface(session)
        if wanted is not None and has != wanted:
            odd = _difference(has, wanted)
            return f"{name} has other inputs or outputs than the upload: {odd}"
        session.run(None, _feed(str(feed)) if feed.exists() else _zeros(session))
    return None


def _session(model: str, *, optimized: bool = True) -> Any:  # noqa: ANN401 - onnxruntime has no types
    import onnxruntime as ort  # noqa: PLC0415 - after the seal

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if not optimized:  # only to be asked for its interface
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


Port = tuple[str, str, tuple[int | None, ...]]


def _interface(session: Any) -> list[Port]:  # noqa: ANN401 - as above
    """Name and type of each port, and the fixed sizes of inputs.

    Of an output a cleaned model may know more than the upload did.
    """
    inputs = [
        (port.name, port.type, tuple(n if isinstance(n, int) else None for n in port.shape))
        for port in session.get_inputs()
    ]
    return inputs + [(port.name, port.type, ()) for port in session.get_outputs()]


def _upload_session(upload: Path) -> Any:  # noqa: ANN401 - as above
    try:
        return _session(str(upload), optimized=False)
    except Exception:  # an operator that has a kernel only where it was fused
        return _session(str(upload))


def _difference(has: list[Port], wanted: list[Port]) -> str:
    odd = sorted({port[0] for port in set(has) ^ set(wanted)})
    return ", ".join(odd) or "their order"
