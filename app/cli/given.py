"""What the user gave: files that exist, JSON that can be read, a folder that can be written."""

import json
from pathlib import Path
from typing import Any

from app.cli.refusals import CannotDo

#: The names of a result: those of an earlier run would pass for this one's.
STALE = ("front-*.onnx", "model.onnx.data", "kept_channels.json", "bundle.zip")


def file(given: str, what: str) -> Path:
    """A file that is there, absolute.

    Raises:
        CannotDo: it is not, or is no plain file.
    """
    path = Path(given)
    try:
        if path.is_file():
            path.open("rb").close()
            return path.absolute()
        reason = "is not a file" if path.exists() else "does not exist"
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    raise CannotDo(f"{what} {given} {reason}", code="file_not_found", hint="check the path")


def optional_file(given: str | None, what: str) -> Path | None:
    return None if given is None else file(given, what)


def recipe(given: str | None) -> Any:  # noqa: ANN401 - checked by whoever runs it
    """A preset's name as it is; JSON from the argument or from a file.

    Raises:
        CannotDo: it looks like JSON and is none.
    """
    if given is None or not _is_json_or_file(given):
        return given
    return _json(given, "--recipe", code="invalid_recipe")


def inputs(given: str | None) -> dict[str, Any] | None:
    """Shapes of inputs: JSON, or a file of it.

    Raises:
        CannotDo: it is no JSON object.
    """
    if given is None:
        return None
    content = _json(given, "--inputs", code="invalid_inputs")
    if isinstance(content, dict):
        return content
    raise CannotDo(
        f"--inputs is not a JSON object: {given[:80]}",
        code="invalid_inputs",
        hint='for instance \'{"x": {"shape": [1, 3, 224, 224], "dtype": "float32"}}\'',
    )


def _is_json_or_file(given: str) -> bool:
    return given.lstrip().startswith(("{", "[")) or "/" in given or given.endswith(".json")


def _json(given: str, option: str, *, code: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    text = given
    if not given.lstrip().startswith(("{", "[")):
        text = file(given, f"the file of {option}").read_text(errors="replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CannotDo(
            f"{option} is not JSON: {error}",
            code=code,
            hint="check the quotes: the shell takes away those that are not inside of '...'",
        ) from None


def folder(given: str) -> Path:
    """Where results go: made if need be.

    Raises:
        CannotDo: it cannot be made or written.
    """
    path = Path(given).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".modelpress-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CannotDo(
            f"-o {given} cannot be written: {error.strerror}",
            code="invalid_output",
            hint="name a folder of your own",
        ) from None
    return path
