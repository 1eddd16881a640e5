"""From arguments to an exit code."""

import json
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from app.cli import local, remote
from app.cli.arguments import parser
from app.cli.refusals import BAD_INPUT, DONE, INTERRUPTED, CannotDo, verdict_code
from app.cli.summary import print_inspection, print_report

if TYPE_CHECKING:
    from worker.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. 0 done, 1 our fault, 2 bad input, 3 not better, 130 interrupted."""
    arguments = parser().parse_args(argv)
    # So that a child and its folder go with us.
    before = signal.signal(signal.SIGTERM, _interrupted)
    try:
        return COMMANDS[arguments.command](arguments)
    except CannotDo as problem:
        problem.tell()
        return problem.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("modelpress: interrupted\n")
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _compress(arguments: Namespace) -> int:
    report = local.compress(arguments)
    if arguments.json:
        _print_json(report)
    else:
        print_report(report, arguments.out)
    return verdict_code(report["verdict"]["outcome"], fail_if_worse=arguments.fail_if_worse)


def _inspect(arguments: Namespace) -> int:
    found = local.inspect(arguments)
    if arguments.json:
        _print_json(found)
    else:
        print_inspection(found, arguments.model)
    return DONE


def _print_json(content: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(content, indent=2) + "\n")


def _serve(arguments: Namespace) -> int:
    # compress needs neither a database nor a web server: do not load them for it.
    from app.serve import serve  # noqa: PLC0415 - as above

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    settings = _settings(arguments, "host", "port", "data_dir")
    return serve(settings) if settings else BAD_INPUT


def _keys(arguments: Namespace) -> int:
    from app.cli.keys import keys  # noqa: PLC0415 - likewise

    settings = _settings(arguments, "data_dir")
    return keys(arguments, settings) if settings else BAD_INPUT


def _gc(arguments: Namespace) -> int:
    from app.cli.gc import gc  # noqa: PLC0415 - likewise

    settings = _settings(arguments, "data_dir")
    return gc(arguments, settings) if settings else BAD_INPUT


def _settings(arguments: Namespace, *names: str) -> "Settings | None":
    """The settings of the environment, under what was named here; None, and said, if wrong."""
    from pydantic import ValidationError  # noqa: PLC0415 - likewise

    from worker.settings import Settings  # noqa: PLC0415 - likewise

    given = {name: getattr(arguments, name) for name in names}
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        for entry in error.errors(include_url=False, include_input=False):
            field = ".".join(map(str, entry["loc"]))
            sys.stderr.write(f"modelpress: {field}: {entry['msg']} [invalid_parameter]\n")
        return None


def _drain(arguments: Namespace) -> int:
    # As for serve: only the operator's commands load the database.
    from app.cli.operator import drain  # noqa: PLC0415 - as above

    return drain(arguments.workers, everyone=arguments.all)


COMMANDS: Mapping[str, Callable[[Namespace], int]] = {
    "serve": _serve,
    "drain": _drain,
    "gc": _gc,
    "compress": _compress,
    "inspect": _inspect,
    "submit": remote.submit,
    "status": remote.status,
    "wait": remote.wait,
    "download": remote.download,
    "cancel": remote.cancel,
    "keys": _keys,
}
