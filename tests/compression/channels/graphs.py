"""Small graphs by name: how each is made, and a feed for it by seed."""

from tests.compression.channels.convnets import (
    dense,
    depthwise,
    detector,
    grouped,
    residual,
    squeeze_excite,
    unet,
)
from tests.compression.channels.parts import image, sequence, steps
from tests.compression.channels.reorders import flattened, indexing, shuffled, softmaxed
from tests.compression.channels.sequences import fused, lstm, transformer

GRAPHS = {
    "residual": (residual, image),
    "dense": (dense, image),
    "depthwise": (depthwise, image),
    "grouped": (grouped, image),
    "squeeze_excite": (squeeze_excite, image),
    "unet": (unet, image),
    "transformer": (transformer, sequence),
    "fused": (fused, sequence),
    "lstm": (lstm, steps),
    "detector": (detector, image),
    "indexing": (indexing, image),
    "flattened": (flattened, image),
    "shuffled": (shuffled, image),
}
# These lose less than 30 %: most of them is pinned.
PINNED = {"softmaxed": (softmaxed, image)}
