"""Encoder and decoder judged together: by the tokens that greedy decoding comes to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from worker.compression import graph
from worker.compression.calibration import CalibrationSet, Feed
from worker.compression.errors import InvalidData
from worker.compression.graph import InputSpec

STEPS = 24
"""Tokens that are decoded of each sample."""
_NO_TOKEN = -1


@dataclass(frozen=True)
class Pair:
    """`model`, which is compressed, and its `partner`; `start` is the first token."""

    model: Path
    partner: Path
    decodes: bool
    start: int = 0

    def tokens(
        self, path: Path, samples: CalibrationSet, *, threads: int = 1
    ) -> list[np.ndarray]:
        """What greedy decoding comes to, (batch, steps), with `path` in place of the model.

        A sample that `path` fails on has no token at all.
        """
        if self.decodes:
            decoder = Decoder(path, threads)
            given = [(feed, feed[decoder.ids.name][:, :1]) for feed in samples]
        else:
            decoder, encoder = (
                Decoder(self.partner, threads),
                graph.session(path, threads=threads),
            )
            given = [self._encoded(encoder, decoder, feed) for feed in samples]
        return [decoder.greedy(feed, start) for feed, start in given]

    def _encoded(
        self, encoder: ort.InferenceSession, decoder: "Decoder", feed: Feed
    ) -> tuple[Feed, np.ndarray]:
        """What the decoder is fed, and the first tokens."""
        names = [output.name for output in encoder.get_outputs()]
        made = dict(zip(names, encoder.run(None, feed), strict=True))
        states = next(one for one in made.values() if one.ndim == 3 and one.dtype.kind == "f")
        rest: Feed = {}
        for spec in decoder.others:
            if spec.dtype.kind == "f" and len(spec.shape) == 3:
                rest[spec.name] = made.get(spec.name, states).astype(spec.dtype)
            else:
                rest[spec.name] = _mask(feed, states).astype(spec.dtype)
        start = np.full((len(states), 1), self.start, decoder.ids.dtype)
        return rest, start


class Decoder:
    """A model that gives the scores of the next token, from all tokens before it."""

    def __init__(self, path: Path, threads: int) -> None:
        specs = graph.inputs(path)
        ids = _ids(specs)
        if ids is None:
            raise ValueError(f"{path.name} is no decoder")
        self.ids = ids
        self._running = graph.session(path, threads=threads)
        self.others = [spec for spec in specs if spec is not ids and not self._grows(spec)]
        self._growing = [spec for spec in specs if spec is not ids and self._grows(spec)]
        length = ids.shape[1]
        self._length = length if isinstance(length, int) else None

    def _grows(self, spec: InputSpec) -> bool:
        """Whether an input goes along with the tokens: their mask, their positions."""
        name = spec.name.lower()
        along = "mask" in name or "position" in name
        return along and len(spec.shape) == 2 and "encoder" not in name

    def greedy(self, feed: Mapping[str, np.ndarray], start: np.ndarray) -> np.ndarray:
        """(batch, steps) tokens, each the likeliest after those before it."""
        ids = np.asarray(start, self.ids.dtype)
        steps = STEPS if self._length is None else min(STEPS, self._length - 1)
        given = {spec.name: feed[spec.name] for spec in self.others if spec.name in feed}
        for _ in range(steps):
            scores = self._scores({**given, **self._fed(ids)}, ids.shape[1])
            if scores is None:
                return np.full((len(ids), steps), _NO_TOKEN)
            following = np.nan_to_num(scores, nan=-np.inf).argmax(-1)
            ids = np.concatenate([ids, following[:, None].astype(ids.dtype)], 1)
        return ids[:, 1:]

    def _fed(self, ids: np.ndarray) -> Feed:
        known = ids.shape[1]
        room = self._length or known
        padded = np.pad(ids, ((0, 0), (0, room - known)))
        fed = {self.ids.name: padded}
        for spec in self._growing:
            places = np.broadcast_to(np.arange(room), padded.shape)
            value = places if "position" in spec.name.lower() else places < known
            fed[spec.name] = value.astype(spec.dtype)
        return fed

    def _scores(self, feed: Feed, known: int) -> np.ndarray | None:
        """(batch, tokens) scores of the token behind the last known one."""
        try:
            made = self._running.run(None, feed)
        except MemoryError:
            raise
        except Exception:  # a result that does not run has lost every token
            return None
        logits = next((one for one in made if one.ndim == 3 and one.dtype.kind == "f"), None)
        return None if logits is None else np.asarray(logits[:, known - 1])


def pair(model: Path, partner: Path, *, start: int = 0) -> Pair:
    """The two as encoder and decoder: which is which, their inputs tell.

    Raises:
        InvalidModel: the partner cannot be read.
        InvalidData: the two do not fit together (`partner_mismatch`).
    """
    graph.session(partner)
    decoders = [one for one in (model, partner) if is_decoder(one)]
    if len(decoders) != 1:
        raise _mismatch(
            f"{'both' if decoders else 'neither'} of the two models take tokens and the states "
            "of an encoder"
        )
    found = Pair(model, partner, decodes=decoders[0] == model, start=start)
    decoder = Decoder(decoders[0], 1)
    strange = [spec.name for spec in decoder.others if not _is_of_encoder(spec)]
    if strange:
        raise _mismatch(f"the decoder also takes {', '.join(strange[:3])}")
    return found


def is_decoder(path: Path) -> bool:
    """Whether a model takes tokens, and the states of an encoder beside them."""
    specs = graph.inputs(path)
    return _ids(specs) is not None and any(
        spec.dtype.kind == "f" and len(spec.shape) == 3 for spec in specs
    )


def agreement(tokens: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> list[float]:
    """Share of each sample's tokens that are the same, in their places."""
    return [
        float(np.mean(one == other)) if one.shape == other.shape else 0.0
        for one, other in zip(tokens, others, strict=True)
    ]


def _ids(specs: Sequence[InputSpec]) -> InputSpec | None:
    found = [
        spec
        for spec in specs
        if spec.dtype.kind == "i"
        and len(spec.shape) == 2
        and not any(word in spec.name.lower() for word in ("mask", "position", "type"))
    ]
    return found[0] if len(found) == 1 else None


def _is_of_encoder(spec: InputSpec) -> bool:
    states = spec.dtype.kind == "f" and len(spec.shape) == 3
    return states or ("mask" in spec.name.lower() and len(spec.shape) == 2)


def _mask(feed: Feed, states: np.ndarray) -> np.ndarray:
    """The mask that the encoder was fed, or that of a sample without padding."""
    for name, value in feed.items():
        if "mask" in name.lower() and value.shape == states.shape[:2]:
            return value
    return np.ones(states.shape[:2])


def _mismatch(what: str) -> InvalidData:
    return InvalidData(
        f"encoder and decoder do not fit together: {what}",
        hint="give an encoder and a decoder that takes its states and all tokens so far, "
        "exported without a cache (past key values)",
        code="partner_mismatch",
    )
