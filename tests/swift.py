"""One node of OpenStack Swift with its S3 layer: a real store, from Debian's packages."""

import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import boto3

from tests.servers import free_port, installed, stop, wait_for_port

RINGS = ("account", "container", "object")
ACCESS_KEY, SECRET_KEY = "test:tester", "testing"
BUCKET = "modelpress-tests"

#: One device, one replica: what `swift-ring-builder` does, without nine starts of Python.
MAKE_RINGS = """
import sys
from swift.common.ring import RingBuilder
folder, *ports = sys.argv[1:]
for name, port in zip(("account", "container", "object"), ports):
    ring = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
    ring.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "d1",
                  "weight": 1.0, "replication_ip": "127.0.0.1", "replication_port": int(port)})
    ring.rebalance()
    ring.get_ring().save(f"{folder}/{name}.ring.gz")
"""
COMMON = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {folder}
devices = {folder}/nodes
mount_check = false
fallocate_reserve = 0
disable_fallocate = true
workers = 0
"""
STORAGE = """
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""
#: The layer asks for a cache but does without one that does not answer.
PROXY = f"""
[pipeline:main]
pipeline = catch_errors cache s3api tempauth slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:9
[filter:s3api]
use = egg:swift#s3api
[filter:slo]
use = egg:swift#slo
[filter:tempauth]
use = egg:swift#tempauth
user_{ACCESS_KEY.replace(":", "_")} = {SECRET_KEY} .admin
"""


@contextmanager
def swift(folder: Path) -> Iterator[dict[str, str]]:
    """A running store with one bucket; the environment that makes boto3 use it."""
    installed("swift-proxy-server")
    ports = {name: free_port() for name in (*RINGS, "proxy")}
    _configure(folder, ports)
    servers = {}
    with ExitStack() as stack:
        for name in ports:
            with (folder / f"{name}.log").open("wb") as log:
                server = subprocess.Popen(
                    [installed(f"swift-{name}-server"), folder / f"{name}.conf"],
                    env={**os.environ, "SWIFT_DIR": str(folder)}, stdout=log, stderr=log,
                )  # fmt: skip
            stack.callback(stop, server)
            servers[name] = server
        for name, port in ports.items():
            wait_for_port(servers[name], port, seconds=60)
        boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{ports['proxy']}",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
        ).create_bucket(Bucket=BUCKET)
        yield {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{ports['proxy']}",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


def _configure(folder: Path, ports: dict[str, int]) -> None:
    (folder / "nodes" / "d1").mkdir(parents=True)
    (folder / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = tests\n"
        "[storage-policy:0]\nname = one\ndefault = yes\n"
    )
    user = pwd.getpwuid(os.geteuid()).pw_name
    for name, port in ports.items():
        pipeline = PROXY if name == "proxy" else STORAGE.format(name=name)
        common = COMMON.format(port=port, user=user, folder=folder)
        (folder / f"{name}.conf").write_text(common + pipeline)
    # Debian's own interpreter has Debian's swift.
    numbers = [str(ports[name]) for name in RINGS]
    command = ["/usr/bin/python3", "-c", MAKE_RINGS, str(folder), *numbers]
    subprocess.run(command, check=True, env={**os.environ, "SWIFT_DIR": str(folder)})
