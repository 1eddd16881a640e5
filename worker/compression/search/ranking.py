"""Which layers of a candidate to give back to float first."""

from worker.compression.benchmark import profile
from worker.compression.errors import CompressionError
from worker.compression.layers import errors
from worker.compression.search.bench import Bench
from worker.compression.search.trial import Trial

# Share of one inference that giving back even the smallest layer costs: conversions beside it.
_BORDER = 0.02


def worst_layers(bench: Bench, one: Trial) -> list[str]:
    """Names of the quantized layers, by error added for each millisecond saved, worst first.

    All errors come from one pass over a few samples, of all layers at once.
    """
    source = one.made[-2].path if len(one.made) > 1 else bench.subject.original
    bench.tell(f"looking for the layers that spoil {one.name}")
    try:
        found = errors(source, one.path, bench.subject.split.calibrate)
    except CompressionError:
        return []
    kernels = profile(source, bench.subject.feeds[0])
    border = _BORDER * sum(kernel.ms for kernel in kernels)
    ms = {kernel.node: kernel.ms for kernel in kernels}
    harm = {
        name: 10 ** (-sqnr / 10) / (ms.get(name, 0.0) + border) for name, sqnr in found.items()
    }
    return sorted(harm, key=lambda name: -harm[name])
