"""Which samples calibrate, which select among candidates, and which the report rests on."""

import warnings
from dataclasses import dataclass

import numpy as np

from worker.compression.calibration.lint import overlap
from worker.compression.calibration.samples import CalibrationSet
from worker.compression.errors import CompressionWarning, InvalidData

_STEADY = 16
"""Samples that calibrate: with fewer, int8 ranges depend on which ones were sent."""
ENOUGH = 8
"""Fewer samples than this prove nothing: the report says not verified."""


@dataclass(frozen=True)
class Split:
    calibrate: CalibrationSet
    select: CalibrationSet
    report: CalibrationSet


def split(
    calibration: CalibrationSet, evaluation: CalibrationSet | None, *, seed: int
) -> Split:
    """Half calibrates, a quarter selects, a quarter reports; no sample is in two parts.

    With an evaluation set all of `calibration` calibrates, and half of the evaluation set
    selects and half reports. Of one or two samples nothing can be held out: then parts share
    them, and the warning `few_samples` says so.

    Samples of a sequence stay together, as far as the sizes of the parts allow.

    Raises:
        InvalidData: a set is empty.
    """
    _not_empty(calibration)
    if evaluation is None:
        calibrate, select, report = _quarters(calibration, seed)
    else:
        _not_empty(evaluation)
        calibrate = calibration
        select, report = _halves(evaluation, seed)
        _overlap(calibration, evaluation)
    if report.source != "synthetic" and report.size < ENOUGH:
        _too_few(calibration, evaluation, report)
    elif report.source != "synthetic" and report.carried and len(report.sequences) < ENOUGH:
        _few_sequences(report)
    elif calibrate.source != "synthetic" and calibrate.size < _STEADY:
        _unsteady(calibrate)
    return Split(calibrate, select, report)


def _quarters(
    samples: CalibrationSet, seed: int
) -> tuple[CalibrationSet, CalibrationSet, CalibrationSet]:
    count = len(samples)
    if count < 3:
        last = samples.take([count - 1])
        return samples.take([0]), last, last
    order, quarter = _order(samples, seed), max(1, count // 4)
    return (
        samples.take(sorted(order[2 * quarter :])),
        samples.take(sorted(order[:quarter])),
        samples.take(sorted(order[quarter : 2 * quarter])),
    )


def _halves(samples: CalibrationSet, seed: int) -> tuple[CalibrationSet, CalibrationSet]:
    count = len(samples)
    if count < 2:
        return samples, samples
    order, half = _order(samples, seed), count // 2
    return samples.take(sorted(order[:half])), samples.take(sorted(order[half:]))


def _order(samples: CalibrationSet, seed: int) -> list[int]:
    """Samples in random order, but those of a sequence together and in theirs."""
    sequences = samples.sequences
    shuffled = np.random.default_rng(seed).permutation(len(sequences))
    return [index for number in shuffled for index in sequences[number]]


def _not_empty(samples: CalibrationSet) -> None:
    if not len(samples):
        raise InvalidData(
            f"the {samples.source} data holds no sample", hint="send at least 32 samples"
        )


def _too_few(
    calibration: CalibrationSet, evaluation: CalibrationSet | None, report: CalibrationSet
) -> None:
    given = calibration.size if evaluation is None else evaluation.size
    needed = 4 * ENOUGH if evaluation is None else 2 * ENOUGH
    shared = "; so few that none can be held out" if given < 2 + (evaluation is None) else ""
    warnings.warn(
        CompressionWarning(
            f"{given} {report.source} samples leave {report.size} to report on{shared}; "
            f"from {needed} samples on the result is verified",
            code="few_samples",
        ),
        stacklevel=3,
    )


def _few_sequences(report: CalibrationSet) -> None:
    count = len(report.sequences)
    warnings.warn(
        CompressionWarning(
            f"the {len(report)} samples to report on are steps of {count} "
            f"sequence{'s' if count > 1 else ''}, and steps go wrong together: the interval is "
            f"wide; send at least {4 * ENOUGH} sequences, a gap in the numbers between them",
            code="few_sequences",
        ),
        stacklevel=3,
    )


def _unsteady(calibrate: CalibrationSet) -> None:
    warnings.warn(
        CompressionWarning(
            f"only {calibrate.size} samples calibrate: int8 ranges depend on which ones they "
            "are; from 64 samples on they are steady",
            code="few_samples",
        ),
        stacklevel=3,
    )


def _overlap(calibration: CalibrationSet, evaluation: CalibrationSet) -> None:
    shared = overlap(calibration, evaluation)
    if shared:
        warnings.warn(
            CompressionWarning(
                f"{shared} evaluation samples are also in the calibration data: "
                "for these the report is not of unseen samples",
                code="duplicate_samples",
            ),
            stacklevel=3,
        )
