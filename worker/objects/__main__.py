"""`python -m worker.objects FROM TO`: copy what TO has not, for a backup or a move.

Each is a folder or s3://bucket/prefix, as MODELPRESS_STORAGE_URL has it. Once there an object
never changes, so one of the same key and size is the same.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from worker.objects.base import ObjectMissing, ObjectStore
from worker.objects.opening import open_url


def copy_objects(source: ObjectStore, target: ObjectStore, *, through: Path) -> tuple[int, int]:
    """Copy what is missing, each as a whole; how many objects that were, and their bytes."""
    there = {found.key: found.bytes for found in target.list()}
    copied, size = 0, 0
    for found in source.list():
        if there.get(found.key) == found.bytes:
            continue
        file = through / "object"
        try:
            source.fetch(found.key, file)
        except ObjectMissing:
            continue  # deleted since it was listed
        with file.open("rb") as opened:
            target.put(found.key, opened)
        copied, size = copied + 1, size + found.bytes
    return copied, size


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m worker.objects", description=__doc__)
    parser.add_argument("source", metavar="FROM")
    parser.add_argument("target", metavar="TO")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        spool = Path(folder)
        stores = [open_url(url, spool=spool / "spool") for url in (given.source, given.target)]
        copied, size = copy_objects(stores[0], stores[1], through=spool)
    sys.stdout.write(f"{copied:,} objects copied, {size:,} bytes\n")


if __name__ == "__main__":
    main()
