"""`python -m benchmarks.memory_limits [FROM TO STEP]`: what a job says at each memory limit.

One line for each limit in MiB: how a sandboxed child over the digits example ends, and how
it is told. Whatever the limit, a job that lacks memory says so: any code but `out_of_memory` is
listed in the last line, which should list none.
"""

import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from worker.isolation import Cause, Ended, Limits, Request, run_child

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
RECIPE = {"passes": [{"method": "magnitude_pruning", "amount": 0.2}]}
MIB = 1 << 20
AT_ONCE = 2


def ended(mib: int) -> Ended:
    """How the job ends with so much memory."""
    limits = Limits(
        wall_seconds=300, cpu_seconds=600, memory_bytes=mib * MIB, disk_bytes=1 << 30
    )
    request = Request(
        kind="compress",
        model=str(DIGITS / "digits.onnx"),
        recipe=RECIPE,
        calibration=str(DIGITS / "calibration.npz"),
    )
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "job"
        folder.mkdir()
        return run_child(
            request,
            folder,
            limits=limits,
            on_message=lambda _: None,
            stop=lambda: None,
            measuring_lock=Path(top) / "lock",
        )


def row(mib: int) -> dict[str, object]:
    end = ended(mib)
    code = end.error["code"] if end.error else None
    return {
        "bench": "memory_limits",
        "mib": mib,
        "cause": end.cause,
        "stage": end.stage,
        "code": code,
    }


def main(first: int = 60, last: int = 400, step: int = 4) -> None:
    rows = []
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for one in threads.map(row, range(first, last + 1, step)):
            rows.append(one)
            print(json.dumps(one), flush=True)
    fits = [one["mib"] for one in rows if one["cause"] == Cause.DONE]
    told = [one["mib"] for one in rows if one["code"] == Cause.OUT_OF_MEMORY]
    other = [one for one in rows if one["mib"] not in (*fits, *told)]
    figures = {
        "limits": len(rows),
        "out_of_memory": len(told),
        "done": len(fits),
        "other": other,
    }
    print(json.dumps({"bench": "memory_limits", **figures}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
