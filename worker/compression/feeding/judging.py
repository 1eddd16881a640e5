"""Scale and colour order: does the model know the data better the other way."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from worker.compression.calibration import Feed
from worker.compression.feeding.confidence import FEWEST, Confidence, surer
from worker.compression.feeding.response import (
    FirstLayers,
    divergences,
    spread,
    with_input,
)
from worker.compression.feeding.transforms import Transform, transforms
from worker.compression.feeding.warned import warn_color_order, warn_scale, warn_unlike

# Divergence from training, in nats, at the first BatchNorm: data as it should be gave 0.15 to
# 0.4 on real models, without normalization 0.8 to 1.2, 255 times too small 5, too large 40,000.
_APART, _UNLIKE = 0.5, 3.0
_SCALE_RATIO, _FEW = 2.0, 8
# Swapped colours: 2 to 2.3 at one of three BatchNorms and better at none; gray text to 1.4.
_COLOR_RATIO, _COLOR_APART, _NO_WORSE = 1.7, 0.03, 0.95
# Spread of the first Conv: 0.2 to 3 on real models, below 0.01 or 20 to 700 at wrong scale.
_USUAL, _POSSIBLE = (0.02, 20.0), (0.005, 500.0)
# Entropies that vary less: certain of anything, or blind to what it is fed.
_ALIKE_NATS = 0.02
_SURER_NATS = 0.15


class Judge:
    """One model, one input, some feeds. `axis` is that of three colours, if there is one."""

    def __init__(
        self, model: Path, feeds: Sequence[Feed], name: str, axis: int | None, workdir: Path
    ) -> None:
        self._model, self._feeds, self._name = model, feeds, name
        self._workdir = workdir
        self._layers = FirstLayers.open(model, workdir, most=1)
        self._transforms = transforms(axis)

    def warn(self, kinds: Mapping[str, str]) -> None:
        if self._layers and self._layers.trained:
            self._by_training(self._layers)
            return
        confidence = Confidence.open(self._model, kinds)
        if not self._by_spread(confidence) and confidence is not None:
            self._by_confidence(confidence)

    def _by_training(self, first: FirstLayers) -> None:
        """Against what the BatchNorms saw in training: scale by the first, colours by three."""
        given = _median(first, self._feeds[:_FEW])
        if given >= _APART:
            found = {
                one.remedy: _median(first, self._changed(one, _FEW))
                for one in self._of("data_scale")
            }
            remedy = min(found, key=lambda remedy: np.nan_to_num(found[remedy], nan=np.inf))
            if given >= _SCALE_RATIO * found[remedy] and found[remedy] < _UNLIKE:
                warn_scale(self._name, remedy)
                return
        if self._is_swapped():
            warn_color_order(self._name)
        elif given >= _UNLIKE:
            warn_unlike(self._name)

    def _is_swapped(self) -> bool:
        layers = FirstLayers.open(self._model, self._workdir, most=3)
        swaps = self._of("data_color_order")
        if layers is None or not swaps:
            return False
        given = divergences(layers, self._feeds)
        return _is_better(given, divergences(layers, self._changed(swaps[0])))

    def _by_spread(self, confidence: Confidence | None) -> bool:
        """By the size of the first Conv's response; whether a warning was given."""
        if self._layers is None or self._feeds[0][self._name].ndim != 4:
            return False
        given = self._spread(self._feeds)
        low, high = _USUAL if confidence else _POSSIBLE
        if low <= given <= high:
            return False
        fitting = [one for one in self._of("data_scale") if self._fits(one)]
        if confidence is not None:
            fitting = self._surer(confidence, fitting)
        if not fitting:
            return False
        warn_scale(self._name, fitting[0].remedy)
        return True

    def _surer(self, confidence: Confidence, among: Sequence[Transform]) -> list[Transform]:
        """Those that make the classifier surer; or that make its answers differ at all."""
        feeds = confidence.affordable(self._feeds)
        if len(feeds) < FEWEST or not among:
            return []
        given = confidence.entropies(feeds)
        found = {one: confidence.entropies(self._changed(one, len(feeds))) for one in among}
        if given.std() < _ALIKE_NATS:
            return [one for one, nats in found.items() if nats.std() > _ALIKE_NATS]
        gains = {one: surer(given, entropies) for one, entropies in found.items()}
        best = sorted(among, key=lambda one: -gains[one])
        return [one for one in best if gains[one] > _SURER_NATS]

    def _by_confidence(self, confidence: Confidence) -> None:
        """Colours swapped, a classifier is less sure; its scale seems right."""
        if self._surer(confidence, self._of("data_color_order")):
            warn_color_order(self._name)

    def _of(self, fault: str) -> list[Transform]:
        return [one for one in self._transforms if one.fault == fault]

    def _changed(self, transform: Transform, count: int | None = None) -> list[Feed]:
        with np.errstate(over="ignore"):
            return [
                with_input(feed, self._name, transform.apply(feed[self._name]))
                for feed in self._feeds[:count]
            ]

    def _fits(self, transform: Transform) -> bool:
        feeds = self._changed(transform, _FEW)
        return not _is_blank(feeds[0][self._name]) and 0.05 <= self._spread(feeds) <= 5

    def _spread(self, feeds: Sequence[Feed]) -> float:
        return spread(self._layers.moments(feeds)[0]) if self._layers else 1.0


def _median(layers: FirstLayers, feeds: Sequence[Feed]) -> float:
    return float(np.median(divergences(layers, feeds)[0]))


def _is_better(given: Sequence[np.ndarray], swapped: Sequence[np.ndarray]) -> bool:
    """Clearly closer to training at one layer and further at none, by median or mean."""
    for average in (np.median, np.mean):
        pairs = [(average(a), average(b)) for a, b in zip(given, swapped, strict=True)]
        if any(was < _NO_WORSE * now for was, now in pairs):
            continue
        if any(was > _COLOR_RATIO * now and was - now > _COLOR_APART for was, now in pairs):
            return True
    return False


def _is_blank(value: np.ndarray) -> bool:
    """Whether nothing is left to see: all values nearly the same."""
    return bool(np.std(value) < 0.02 * np.abs(value).max(initial=0))
