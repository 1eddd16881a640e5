"""Requests that are wrong on purpose, as bytes on the wire."""

import random
from base64 import b64encode
from pathlib import Path

from tests.fuzz.content import NAMES, archive, damaged, recipe

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
MODEL = (DIGITS / "digits.onnx").read_bytes()[:20_000]
NUMBERS = (
    b"-1", b"0", b"1", b"+5", b"5, 5", b"0x10", b"1e3", b"", b"abc", b"9" * 30, b"1_000",
    b"\xd9\xa3", b"18446744073709551617", b"5.0", b" 7",
)  # fmt: skip
FORM = b"multipart/form-data; boundary=b"
RAW = b"application/octet-stream"
CHUNK = b"application/offset+octet-stream"
TUS = b"Tus-Resumable: 1.0.0"


def request(
    line: bytes, body: bytes = b"", *headers: bytes, kind: bytes = b"", sized: bool = True
) -> bytes:
    """One request, in full."""
    lines = [line + b" HTTP/1.1", b"Host: localhost", b"Connection: close"]
    lines += [b"Content-Type: " + kind] * bool(kind)
    lines += [b"Content-Length: %d" % len(body)] * sized
    return b"\r\n".join([*lines, *headers]) + b"\r\n\r\n" + body


def part(name: bytes, content: bytes, filename: bytes | None = None) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="' + name + b'"'
    head += b"" if filename is None else b'; filename="' + filename + b'"'
    return head + b"\r\n\r\n" + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b--\r\n"


def model(chance: random.Random) -> bytes:
    """A damaged model: as the body, or in a form."""
    content = damaged(MODEL, chance)
    if chance.random() < 0.5:
        return request(b"POST /v1/models", content, kind=RAW)
    return request(b"POST /v1/jobs", form(part(b"model", content, b"a.onnx")), kind=FORM)


def zipped(chance: random.Random) -> bytes:
    """An archive that lies, as data or as a model."""
    content = archive(chance)
    name = chance.choice(NAMES)[:4000].encode("utf-8", "replace")
    match chance.randrange(3):
        case 0:
            return request(b"POST /v1/datasets", content, kind=RAW)
        case 1:
            return request(b"POST /v1/models", content, kind=RAW)
        case _:
            parts = part(b"model", MODEL, name), part(b"calibration", content, name)
            return request(b"POST /v1/jobs", form(*parts), kind=FORM)


def multipart(chance: random.Random) -> bytes:
    """A form that is broken, or that has no end of parts and headers."""
    good = form(part(b"model", MODEL, b"a.onnx"), part(b"recipe", b"prune-l1"))
    name = chance.choice(NAMES).encode("utf-8", "replace")
    bodies = (
        lambda: damaged(good, chance),
        lambda: damaged(good[:200], chance) + good[200:],
        lambda: good[: chance.randrange(len(good))],
        lambda: form(*[part(b"model", b"", b"")] * 10_000),
        lambda: form(*[part(b"x%d" % number, b"") for number in range(10_000)]),
        lambda: form(part(name[:9000], b"x"), part(b"model", MODEL, name[:9000])),
        lambda: b"--b\r\n" + b"X-Long: " + b"a" * 200_000 + b"\r\n\r\n" + good,
        lambda: b"--b\r\n" + b"X: y\r\n" * 20_000 + b"\r\n" + good,
        lambda: good.replace(b"\r\n", b"\n"),
        lambda: good.replace(b"form-data", b"attachment").replace(b"filename", b"filename*"),
        lambda: b"preamble" * 50_000 + b"\r\n" + good + b"epilogue" * 50_000,
        lambda: form(part(b"model", form(part(b"model", MODEL, b"b")), b"a")),
        lambda: part(b"model", MODEL, b"a") + b"--b-" * 1000,
        lambda: b"",
    )
    kinds = (
        FORM, FORM, FORM, FORM, FORM, b"multipart/form-data",
        b'multipart/form-data; boundary=""',
        b"multipart/form-data; boundary=" + b"b" * 300, b"multipart/mixed; boundary=b",
        b"multipart/form-data; boundary=b; boundary=c",
        b"multipart/form-data; boundary=\xff\x00",
        b"application/x-www-form-urlencoded", b"application/json", b"text/plain; charset=x",
    )  # fmt: skip
    where = chance.choice([b"/v1/jobs", b"/v1/models", b"/v1/datasets", b"/jobs", b"/login"])
    return request(b"POST " + where, chance.choice(bodies)(), kind=chance.choice(kinds))


def recipes(chance: random.Random) -> bytes:
    """A good model with a recipe, or inputs, that are not."""
    field = chance.choice([b"recipe", b"recipe", b"inputs", b"name", b"model_id"])
    text = recipe(chance).encode("utf-8", "surrogatepass")
    parts = part(b"model", MODEL, b"a.onnx"), part(field, text)
    return request(b"POST /v1/jobs", form(*parts), kind=FORM)


def tus(chance: random.Random, upload: bytes) -> bytes:
    """Resumable uploads with numbers, metadata and checksums that are none."""
    number = chance.choice(NUMBERS)
    encoded = b64encode(chance.choice(NAMES)[:2000].encode("utf-8", "replace"))
    metadata = (
        b"kind bW9kZWw=", b"kind " + encoded, b"kind", b"kind bW9kZWw=,filename " + encoded,
        b"kind bW9kZWw=, kind ZGF0YXNldA==", b"," * 3000, b"kind bW9kZWw=," + b"a b," * 2000,
        b"kind \xff\xfe", b"filename " + encoded + b",kind bW9kZWw",
    )  # fmt: skip
    checksums = (b"sha256 ", b"sha1 " + encoded, b"md5 AAAA", b"crc32", b"sha256 ====", b"\xff")
    if chance.random() < 0.4:
        given = chance.choice([b"100", number])
        told = b"Upload-Metadata: " + chance.choice(metadata)
        return request(b"POST /v1/uploads", b"", TUS, b"Upload-Length: " + given, told)
    checked = [b"Upload-Checksum: " + chance.choice(checksums)] * chance.randrange(2)
    headers = [TUS, b"Upload-Offset: " + chance.choice([b"0", number]), *checked]
    method = chance.choice([b"PATCH ", b"PATCH ", b"HEAD ", b"DELETE ", b"POST "])
    override = b"X-HTTP-Method-Override: " + chance.choice([b"PATCH", b"PUT", b"\x7f"])
    body = chance.randbytes(chance.choice([0, 1, 100, 200]))
    return request(method + b"/v1/uploads/" + upload, body, *headers, override, kind=CHUNK)


def headers(chance: random.Random) -> bytes:
    """What no HTTP library would send: lengths that lie, and lines that are none."""
    number, size = chance.choice(NUMBERS), len(MODEL)
    where = chance.choice([b"POST /v1/models", b"POST /v1/jobs", b"PATCH /v1/uploads/x"])
    chunked = b"Transfer-Encoding: chunked"

    def sent(*lines: bytes, body: bytes = MODEL) -> bytes:
        return request(where, body, *lines, kind=RAW, sized=False)

    made = (
        lambda: sent(b"Content-Length: " + number),
        lambda: sent(b"Content-Length: %d" % (size + chance.choice([-9, 9, 10**6, 10**15]))),
        lambda: sent(b"Content-Length: 5", b"Content-Length: 6"),
        lambda: sent(b"Content-Length: 5", chunked),
        lambda: sent(chunked, body=b"5\r\nhello\r\n0\r\n\r\n"),
        lambda: sent(chunked, body=chance.choice([b"-5\r\n", b"zz\r\n", b"f" * 20 + b"\r\nx"])),
        lambda: sent(chunked, body=b"5;" + b"e=" * 30_000 + b"\r\nhello\r\n0\r\n\r\n"),
        lambda: sent(b"Transfer-Encoding: gzip, chunked"),
        lambda: sent(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
        lambda: sent(b"Expect: 100-continue", b"Content-Length: %d" % size),
        lambda: sent(b"Expect: nonsense", b"Content-Length: %d" % size),
        lambda: sent(b"Content-Encoding: gzip", b"Content-Length: %d" % size),
        lambda: sent(b"X-Long: " + b"a" * 100_000),
        lambda: sent(*[b"X: y"] * 3000),
        lambda: sent(b"No colon here"),
        lambda: sent(b"Bad\x00Name: x", b"X: \x00"),
        lambda: sent(b"Authorization: Bearer " + b"\xff" * 50),
        lambda: sent(b"Cookie: modelpress_session=" + b"\xff\xfe; ;=;"),
        lambda: sent(b"Content-Digest: sha-256=:!!!:", b"Content-Length: %d" % size),
        lambda: sent(b"X-Checksum-Sha256: \xe9", b"Content-Length: %d" % size),
        lambda: sent(b"Idempotency-Key: " + b"k" * 300, b"Content-Length: %d" % size),
        lambda: sent(b"Range: bytes=" + b"0-0," * 2000),
        lambda: request(b"POST //v1/..%2f..%2fetc/passwd", MODEL),
        lambda: request(b"GET /v1/jobs?cursor=%00&limit=9999999999999999999999"),
        lambda: request(b"GET /v1/jobs/%ff%fe%00"),
        lambda: request(b"GET /" + b"a" * 70_000),
        lambda: request(b"B\xffD /v1/jobs"),
        lambda: b"GET /healthz HTTP/0.9\r\n\r\n",
        lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        lambda: chance.randbytes(400),
    )  # fmt: skip
    return chance.choice(made)()
