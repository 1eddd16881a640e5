"""Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

SECONDS_BETWEEN_LINES = 5

#: Stage, share of the whole (0..1), message.
Tell = Callable[[str, float, str], None]


@contextlib.contextmanager
def shown() -> Iterator[Tell]:
    """Show progress while inside."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines().tell
        return
    columns = (
        TextColumn("{task.fields[stage]:<9}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0, stage="")

        def tell(stage: str, share: float, message: str) -> None:
            bar.update(task, completed=share, stage=stage, description=message)

        yield tell


class Lines:
    """One line when the stage changes, and one every few seconds."""

    def __init__(self) -> None:
        self._stage, self._told = "", float("-inf")

    def tell(self, stage: str, share: float, message: str) -> None:
        now = time.monotonic()
        if stage == self._stage and now - self._told < SECONDS_BETWEEN_LINES:
            return
        self._stage, self._told = stage, now
        sys.stderr.write(f"{stage:<9} {share:4.0%}  {message}\n")
        sys.stderr.flush()
