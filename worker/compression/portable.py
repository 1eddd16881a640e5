"""What a result gives on x86 CPUs without VNNI, in words."""

from collections.abc import Sequence
from pathlib import Path

from worker.compression.calibration import CalibrationSet
from worker.compression.portability import Products, Saturation, judge_products
from worker.compression.report import Portability, Saturated

_REMEDY = "Weights of type int7 cannot saturate; the loading snippet asks for exact kernels."


def portable(result: Path, samples: CalibrationSet) -> Portability | None:
    """The verdict on a model file; None where it multiplies no uint8 with int8."""
    found = judge_products(result, samples)
    if not found.layers:
        return None
    worst = sorted(found.simulated, key=lambda one: -_share(one))
    bad = [one for one in worst if one.saturated]
    return Portability(
        same=False if bad else None if found.unseen else True,
        basis="samples" if bad or worst else "unseen" if found.unseen else "weights",
        samples=found.samples,
        layers=[
            Saturated(layer=one.layer, saturated=one.saturated, outputs=one.outputs)
            for one in worst
        ],
        sentence=_sentence(found, bad),
    )


def _share(one: Saturation) -> float:
    return one.saturated / max(one.outputs, 1)


def _sentence(found: Products, bad: Sequence[Saturation]) -> str:
    if bad:
        return (
            f"Not the same on x86 CPUs without VNNI: {len(bad)} of {found.layers} int8 layers "
            f"saturate there (worst {bad[0].layer}, {_percent(_share(bad[0]))} of its "
            f"outputs). {_REMEDY}"
        )
    if found.unseen:
        return (
            f"On x86 CPUs without VNNI the result may differ: {len(found.unseen)} of "
            f"{found.layers} int8 layers could saturate there, and no run shows what they "
            f"read. {_REMEDY}"
        )
    if found.simulated:
        return f"The same on x86 CPUs without VNNI, simulated on {found.samples} samples."
    return "The same on x86 CPUs without VNNI: no pair of its products can saturate."


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share >= 0.0001 else "under 0.01 %"
