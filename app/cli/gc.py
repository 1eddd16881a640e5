"""gc: remove what a service keeps no longer."""

import json
import sys
from argparse import Namespace
from dataclasses import asdict

from app.cli.keys import records
from app.cli.refusals import DONE
from worker.retention import Collected, collect
from worker.settings import Settings


def gc(arguments: Namespace, settings: Settings) -> int:
    """Remove it, or only tell; stdout has what goes, stderr the sum."""
    with records(settings) as services:
        found = collect(services, dry_run=arguments.dry_run)
    sys.stdout.write(_as_json(found) if arguments.json else _as_lines(found))
    verb = "would go" if arguments.dry_run else "went"
    number = len(found.expired) + len(found.orphans)
    sys.stderr.write(f"{number} things of {found.bytes:,} bytes {verb}\n")
    return DONE


def _as_json(found: Collected) -> str:
    content = {
        "expired": [asdict(one) for one in found.expired],
        "orphans": found.orphans,
        "bytes": found.bytes,
    }
    return json.dumps(content, indent=2) + "\n"


def _as_lines(found: Collected) -> str:
    lines = [f"{one.what}  {one.id}  {one.owner_id}  {one.bytes}" for one in found.expired]
    lines += [f"file  {key}  {size}" for key, size in found.orphans.items()]
    return "".join(f"{line}\n" for line in lines)
