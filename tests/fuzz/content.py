"""Contents that are wrong on purpose: models, archives and recipes."""

import io
import json
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from copy import deepcopy
from typing import Any

NAMES = (
    "../../../etc/passwd",
    "/etc/passwd",
    "C:\\windows\\system.ini",
    "a/../../b.npy",
    "x.npy\0.txt",
    "\u202egnp.ypn",
    "name\r\nSet-Cookie: a=b",
    "\x1b[31mred\x1b[0m",
    "<img src=x onerror=alert(1)>",
    "%s%n{0}${jndi:ldap://x}",
    "a" * 5000,
    "🦀" * 300,
    "",
    ".",
    "con",
)
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, -1e-308, 2**63, 10**400, "", "auto", "\ud800", "é\0",
    "a" * 100_000, [], {}, [[]], [None] * 1000, {"method": None}, {"": {"": {}}}, "NaN",
    "1e999", "../x",
)  # fmt: skip
RECIPE = {
    "passes": [
        {"method": "magnitude_pruning", "amount": 0.2, "scope": "global"},
        {"method": "static_quantization", "calibration": "minmax", "keep_float": []},
    ],
    "goal": {"objective": "latency", "max_drop": 0.01, "outputs": {}},
    "target": {"cpu": "auto", "threads": 1, "shapes": []},
    "images": {"size": [8, 8], "scale": 1.0, "mean": [0.0], "std": [1.0]},
    "seed": 0,
}


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The content with bytes changed, cut out and put in."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 3, 30])):
        if not data:
            break
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + max(1, chance.randrange(min(500, len(data))))]
            case 2:
                data[at:at] = chance.randbytes(chance.randrange(1, 50))
            case _:
                del data[at:]
    return bytes(data)


def archive(chance: random.Random) -> bytes:
    """A ZIP file that lies, nests, repeats or swells."""
    content = chance.choice([_plain, _nested, _bomb, _repeated, _encrypted, _sizes, _zip64])
    made = content(chance)
    return damaged(made, chance) if chance.random() < 0.3 else made


def _zipped(entries: list[tuple[str, bytes]], *, deflated: bool = False) -> bytes:
    kept = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    with warnings.catch_warnings(), zipfile.ZipFile(kept, "w", method) as file:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in entries:
            file.writestr(zipfile.ZipInfo(name), data, method)
    return kept.getvalue()


def _plain(chance: random.Random) -> bytes:
    name = chance.choice(NAMES) or "x"
    return _zipped([("x.npy", b"\x93NUMPY"), (name[:60_000], chance.randbytes(40))])


def _nested(chance: random.Random) -> bytes:
    made = _zipped([("x.npy", b"\x93NUMPY\x01\0")])
    for _ in range(chance.randrange(2, 30)):
        made = _zipped([("inner.zip", made), ("data.pkl", b"\x80\x04.")])
    return made


def _bomb(chance: random.Random) -> bytes:
    return _zipped([("x.npy", bytes(chance.choice([1_000_000, 8_000_000])))], deflated=True)


def _repeated(chance: random.Random) -> bytes:
    return _zipped([("m/code/a.py", b"pass"), ("m/constants.pkl", b"."), ("x.npy", b"1")] * 9)


def _encrypted(chance: random.Random) -> bytes:
    made = bytearray(_zipped([("x.npy", b"\x93NUMPY")]))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        made[made.index(mark) + at] |= 1
    return bytes(made)


def _sizes(chance: random.Random) -> bytes:
    """Headers that state other sizes, counts and places than there are."""
    made = bytearray(_zipped([("x.npy", b"\x93NUMPY")] * 2))
    mark, at, form = chance.choice(
        [(b"PK\x03\x04", 22, "<I"), (b"PK\x01\x02", 24, "<I"), (b"PK\x05\x06", 10, "<H"),
         (b"PK\x05\x06", 16, "<I"), (b"PK\x03\x04", 26, "<H")]
    )  # fmt: skip
    value = chance.choice([0, 1, 0x7FFF, 0xFFFF] + [0xFFFFFFFF] * (form == "<I"))
    struct.pack_into(form, made, made.index(mark) + at, value)
    return bytes(made)


def _zip64(chance: random.Random) -> bytes:
    """An end record that sends the reader to a 64-bit one, which is nowhere or lies."""
    made = _zipped([("x.npy", b"\x93NUMPY")])
    end = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, 2**40, 2**40, 2**62, 2**63)
    there = struct.pack("<IIQI", 0x07064B50, 0, chance.choice([0, len(made), 2**63]), 1)
    tail = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return made[: made.index(b"PK\x05\x06")] + end + there + tail


def recipe(chance: random.Random) -> str:
    """The text of a recipe that is broken, endless, or of the wrong types."""
    make: Callable[[random.Random], str] = chance.choice([_deep, _wrong, _wrong, _wrong, _text])
    return make(chance)


def _deep(chance: random.Random) -> str:
    depth = chance.choice([50, 2000, 15_000])
    opened, closed = chance.choice([("[", "]"), ('{"a":', "}"), ('{"passes":[', "]}")])
    return opened * depth + ("1" + closed * depth) * chance.randrange(2)


def _wrong(chance: random.Random) -> str:
    """A good recipe with a value of any kind somewhere in it, or a key that is none."""
    made = json.loads(json.dumps(RECIPE))
    for _ in range(chance.choice([1, 1, 4])):
        _spoil(made, chance)
    return json.dumps(made)


def _spoil(value: Any, chance: random.Random) -> None:
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = chance.choice(keys) if keys else None
        deeper = value[key] if key is not None else None
        if isinstance(deeper, dict | list) and deeper and chance.random() < 0.7:
            value = deeper
            continue
        if isinstance(value, dict) and (key is None or chance.random() < 0.2):
            key = chance.choice(NAMES)
        if key is not None:
            value[key] = deepcopy(chance.choice(VALUES))
        return


def _text(chance: random.Random) -> str:
    texts = (
        "NaN", "-Infinity", '{"seed": NaN}', '{"seed": 1e999}', '{"seed": ' + "9" * 5000 + "}",
        '{"seed": 1, "seed": 2}', '{"passes": "auto"', "{}{}", "null", "[]", '"auto"',
        "\ufeff{}", '{"seed": "\\ud800"}', "auto\0", "AUTO", "prune-l1\r\n",
        "{'passes': 'auto'}", "{" * 9,
        '{"goal": {"outputs": {"\\u0000": "class"}}}', "\x1b[2J", "x" * 60_000,
    )  # fmt: skip
    return chance.choice(texts)
