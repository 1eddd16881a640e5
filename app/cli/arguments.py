"""The words of the command line."""

import argparse
import os
from importlib.metadata import PackageNotFoundError, version

SERVER = "http://127.0.0.1:8000"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="modelpress",
        description="Compress a trained model, with proof that it still works.",
    )
    top.add_argument("--version", action="version", version=f"modelpress {_version()}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _serve(commands.add_parser("serve", help="web server, worker and broker in one command"))
    _gc(commands.add_parser("gc", help="remove what is kept no longer"))
    _drain(commands.add_parser("drain", help="have workers end when their jobs have"))
    _compress(commands.add_parser("compress", help="compress a model here"))
    _inspect(commands.add_parser("inspect", help="say what a model is"))
    _submit(commands.add_parser("submit", help="compress a model by a running service"))
    _status(commands.add_parser("status", help="say where a job stands"))
    _wait(commands.add_parser("wait", help="wait for the end of a job"))
    _download(commands.add_parser("download", help="fetch the results of a job"))
    _cancel(commands.add_parser("cancel", help="end a job"))
    _keys(commands.add_parser("keys", help="make, list and revoke the service's keys"))
    return top


def _version() -> str:
    try:
        return version("modelpress")
    except PackageNotFoundError:
        return "(not installed)"


def _serve(command: argparse.ArgumentParser) -> None:
    command.add_argument("--host", help="address to bind (default: 127.0.0.1)")
    command.add_argument("--port", type=int, help="port to bind (default: 8000)")
    command.add_argument("--data-dir", metavar="DIR", help="where everything is kept")


def _keys(command: argparse.ArgumentParser) -> None:
    verbs = command.add_subparsers(dest="verb", required=True, metavar="VERB")
    create = verbs.add_parser("create", help="make a key; it is shown once")
    create.add_argument("name", metavar="NAME", help="what the key is for")
    create.add_argument("--owner", default="local", help="whose key it is (default: local)")
    create.add_argument(
        "--scopes",
        default="read,write",
        help="of read, write and admin, with commas between (default: read,write)",
    )
    create.add_argument("--days", type=_days, help="how long it is valid (default: for ever)")
    listing = verbs.add_parser("list", help="say which keys there are")
    revoke = verbs.add_parser("revoke", help="end a key")
    revoke.add_argument("id", metavar="KEY_ID", help="the eight letters after mp_")
    for verb in (create, listing, revoke):
        verb.add_argument(
            "--data-dir", metavar="DIR", help="where the service keeps everything"
        )
    for verb in (create, listing):
        _json(verb, "print it as JSON")


def _days(text: str) -> float:
    days = float(text)
    if not 0 < days < 36_500:
        raise argparse.ArgumentTypeError("must be more than 0 and less than 36,500")
    return days


def _gc(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dry-run", action="store_true", help="only tell what would go")
    command.add_argument("--data-dir", metavar="DIR", help="where the service keeps everything")
    _json(command, "print what went as JSON")


def _drain(command: argparse.ArgumentParser) -> None:
    command.add_argument("workers", nargs="*", metavar="WORKER", help="its id or its host")
    command.add_argument("--all", action="store_true", help="every worker that lives")


def _compress(command: argparse.ArgumentParser) -> None:
    _model(command)
    command.add_argument("-o", "--out", required=True, metavar="DIR", help="for the results")
    _request(command)
    _json(command, "print the report as JSON")
    _fail_if_worse(command)
    _sandbox(command)
    command.add_argument(
        "--metric",
        metavar="FILE.py",
        help="your own evaluation, run outside of the sandbox: evaluate(model_path) gives a "
        "number or one for each sample, higher is better",
    )
    command.add_argument(
        "--no-cache", action="store_true", help="neither use nor keep what searches found out"
    )


def _inspect(command: argparse.ArgumentParser) -> None:
    _model(command)
    _inputs(command)
    _json(command, "print what was found as JSON")
    _sandbox(command)


def _submit(command: argparse.ArgumentParser) -> None:
    _model(command)
    _request(command)
    command.add_argument("--name", help="what to call the job (default: the file's name)")
    command.add_argument("--wait", action="store_true", help="wait for the end of the job")
    command.add_argument("-o", "--out", metavar="DIR", help="wait, and fetch the results")
    _fail_if_worse(command)
    _server(command)


def _status(command: argparse.ArgumentParser) -> None:
    _job(command)


def _wait(command: argparse.ArgumentParser) -> None:
    _job(command)
    _fail_if_worse(command)


def _download(command: argparse.ArgumentParser) -> None:
    command.add_argument("-o", "--out", required=True, metavar="DIR", help="for the results")
    _job(command)


def _cancel(command: argparse.ArgumentParser) -> None:
    _job(command)


def _model(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "model", metavar="MODEL", help=".onnx, TorchScript .pt, or a .zip of ONNX and its data"
    )


def _request(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--recipe",
        metavar="NAME|FILE|JSON",
        help="what to do (default: auto; see docs/recipe.md)",
    )
    command.add_argument(
        "--calibration", metavar="FILE", help=".npz or .npy of sample inputs, or .zip of images"
    )
    command.add_argument("--evaluation", metavar="FILE", help="other samples, best with labels")
    command.add_argument(
        "--partner",
        metavar="FILE",
        help="the decoder of an encoder, or the reverse (.onnx): both together are judged by "
        "greedy decoding",
    )
    _inputs(command)


def _inputs(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--inputs",
        metavar="JSON|FILE",
        help="shapes the model does not tell; states: which output feeds which input",
    )


def _json(command: argparse.ArgumentParser, help_text: str) -> None:
    command.add_argument("--json", action="store_true", help=help_text)


def _fail_if_worse(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--fail-if-worse",
        action="store_true",
        help="exit with 3 also where explicit passes made the model slower or worse",
    )


def _sandbox(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--no-sandbox", action="store_true", help="for a model that you trust like a program"
    )


def _server(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--server",
        metavar="URL",
        default=os.environ.get("MODELPRESS_SERVER", SERVER),
        help=f"the service (default: MODELPRESS_SERVER, else {SERVER})",
    )
    _json(command, "print the job as JSON")


def _job(command: argparse.ArgumentParser) -> None:
    command.add_argument("id", metavar="JOB", help="id of the job")
    _server(command)
