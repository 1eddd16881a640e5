"""Is the data what the model was trained on? Judged by the model itself, before any work."""

from collections.abc import Mapping
from pathlib import Path

from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.feeding.judging import Judge
from worker.compression.feeding.layout import channel_axis, misread_layout
from worker.compression.feeding.tokens import check_tokens
from worker.compression.feeding.warned import warn_labels, warn_layout

__all__ = ["check_tokens", "judge_samples"]

_MOST_SAMPLES, _MOST_VALUES = 32, 4_000_000


def judge_samples(
    model: Path, samples: CalibrationSet, kinds: Mapping[str, str], *, workdir: Path
) -> None:
    """Warn where scale, colour order, layout or labels of real data do not fit the model.

    Looks at 32 samples or 4 million values, and runs the first layers, or a classifier, for a
    second or so. `kinds` are those of the outputs.
    """
    if samples.source == "synthetic":
        return
    warn_labels(samples)
    spec = _main_input(graph.inputs(model))
    if spec is None:
        return
    count = min(
        len(samples), _MOST_SAMPLES, max(4, _MOST_VALUES // max(samples[0][spec.name].size, 1))
    )
    feeds = [samples[index] for index in range(count)]
    axis = channel_axis(spec)
    if axis is not None:
        times = misread_layout([feed[spec.name] for feed in feeds], axis)
        if times > 1:
            warn_layout(spec.name, axis, times)
            return
    try:
        Judge(model, feeds, spec.name, axis, workdir).warn(kinds)
    except MemoryError:
        raise
    except Exception:  # noqa: S110 - no advice is no reason to fail a job
        pass


def _main_input(specs: list[graph.InputSpec]) -> graph.InputSpec | None:
    """The one float input of several axes; where there are more, none is judged."""
    found = [spec for spec in specs if spec.dtype.kind == "f" and len(spec.shape) > 1]
    return found[0] if len(found) == 1 else None
