"""The one line of a C++ message that says what happened."""

import re

MOST = 300


def torch_reason(error: Exception) -> str:
    """From TorchScript and its exporter: the last line that names an error, else the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if re.match(r"[\w.]*(Error|Exception): ", line)]
    line = telling[-1] if telling else next(iter(lines), type(error).__name__)
    line = re.sub(r"^(RuntimeError|builtins\.\w+): ", "", line)
    return _cut(re.split(r"\[Caused by|Please feel free", line)[0].strip())


def runtime_reason(error: Exception) -> str:
    """From ONNX, its checker and ONNX Runtime: without codes, source places and folders."""
    said = " ".join(str(error).split())
    said = re.sub(r"ONNX Runtime cannot load [^:]*: ", "", said)
    said = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", said)
    said = re.sub(r"^Load model from \S+ failed: ?", "", said)
    said = re.sub(r"(?<![\w.])(/[\w.+@-]+)+/(?=[\w.+-]+\.(cc|cpp|h|onnx|py)\b)", "", said)
    said = re.split(r" ==> Context:| Stacktrace:", said)[0]
    return _cut(said)


def _cut(line: str) -> str:
    return line if len(line) <= MOST else line[:MOST] + "..."
