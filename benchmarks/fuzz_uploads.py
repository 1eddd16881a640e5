"""R8: damaged uploads with fixed seeds against a service of its own. One JSON line.

python -m benchmarks.fuzz_uploads [NUMBER]
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import httpx

from tests.servers import free_port, stop, wait_for_port

DIGITS = Path(__file__).parent.parent / "examples" / "digits" / "digits.onnx"
HEAD = b'--b\r\nContent-Disposition: form-data; name="model"; filename="a.onnx"\r\n\r\n'
TAIL = b'\r\n--b\r\nContent-Disposition: form-data; name="recipe"\r\n\r\nprune-l1\r\n--b--\r\n'
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The content with bytes changed, cut out and put in."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 3, 30])):
        if not data:
            break
        at = chance.randrange(len(data))
        match chance.randrange(3):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + max(1, chance.randrange(min(500, len(data))))]
            case _:
                data[at:at] = chance.randbytes(chance.randrange(1, 50))
    return bytes(data)


def send(client: httpx.Client, seed: int, model: bytes) -> int:
    """One upload: a damaged model in a good form, in a damaged form, or as the body."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated
    if seed % 3 == 0:
        body = HEAD + damaged(model, chance) + TAIL
        return client.post("/v1/jobs", content=body, headers=FORM).status_code
    if seed % 3 == 1:
        body = damaged(HEAD, chance) + model + damaged(TAIL, chance)
        return client.post("/v1/jobs", content=body, headers=FORM).status_code
    return client.post("/v1/models", content=damaged(model, chance)).status_code


def main(number: int = 2000) -> None:
    model = DIGITS.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = [Path(sys.executable).parent / "modelpress", "serve", "--port", str(port)]
        environment = {**os.environ, "MODELPRESS_MAX_QUEUED_JOBS": "0"}
        with (Path(folder) / "log").open("w") as log:
            server = subprocess.Popen(
                [*command, "--data-dir", f"{folder}/data"],
                env=environment,
                stdout=log,
                stderr=log,
            )
        try:
            wait_for_port(server, port)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                answers = Counter(send(client, seed, model) for seed in range(number))
            lives = server.poll() is None
        finally:
            stop(server, seconds=60)
        said = (Path(folder) / "log").read_text()
    wrong = sum(count for status, count in answers.items() if status >= 500)
    deaths = said.count("is started again")
    found = {
        "bench": "fuzz_uploads",
        "bar": "R8",
        "uploads": number,
        "answers": dict(sorted(answers.items())),
    }
    print(json.dumps(found | {"5xx": wrong, "deaths": deaths + (not lives)}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
