"""What the command line cannot do for the user, in the words of the API, and its exit codes."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

DONE, INTERNAL, BAD_INPUT, NOT_BETTER, INTERRUPTED = 0, 1, 2, 3, 130

#: Failures that another input would not mend.
OURS = {
    "internal_error", "sandbox_unavailable", "crashed", "killed", "worker_lost", "attempt_lost",
    "out_of_memory", "time_limit", "disk_limit", "file_limit", "process_limit",
    "result_refused", "server_unreachable", "unavailable", "not_serving",
}  # fmt: skip


#: Outcomes of explicit passes that are worse than the original.
WORSE = ("as_asked_but_slower", "as_asked_but_worse")


def verdict_code(outcome: str | None, *, fail_if_worse: bool) -> int:
    """3 where the original came back, or where the user said that worse is a failure."""
    failed = outcome == "not_better" or (fail_if_worse and outcome in WORSE)
    return NOT_BETTER if failed else DONE


def printable(text: str) -> str:
    """Without characters that steer a terminal: names in a model may be anyone's."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


class CannotDo(Exception):
    """A problem to tell: `code` is stable and listed in docs/errors.md."""

    def __init__(
        self,
        message: str,
        *,
        code: str,
        hint: str | None = None,
        errors: Iterable[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.message, self.code, self.hint, self.errors = message, code, hint, list(errors)

    @classmethod
    def from_problem(cls, problem: Mapping[str, Any]) -> "CannotDo":
        """From the record of a failed job, or the body of an HTTP error."""
        return cls(
            str(problem.get("message") or problem.get("detail") or "it failed"),
            code=str(problem.get("code") or "internal_error"),
            hint=problem.get("hint"),
            errors=problem.get("errors") or (),
        )

    @property
    def exit_code(self) -> int:
        return INTERNAL if self.code in OURS else BAD_INPUT

    def tell(self) -> None:
        """Culprit, code and remedy, on stderr."""
        lines = [f"modelpress: {self.message} [{self.code}]"]
        if len(self.errors) > 1:
            lines += [f"  {one.get('field')}: {one.get('message')}" for one in self.errors]
        if self.hint:
            lines.append(f"  what to do: {self.hint}")
        sys.stderr.write(printable("\n".join(lines)) + "\n")
