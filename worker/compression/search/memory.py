"""What earlier searches on the same model, data, CPU and versions found out.

The second search for another goal reads here what a candidate is, instead of making, timing and
comparing it again. Files are kept once each, by content; of what was beaten in everything only
the figures are kept.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from worker.compression import graph
from worker.compression.assessment import Made
from worker.compression.benchmark import Latency
from worker.compression.errors import CompressionWarning
from worker.compression.fidelity import Accuracy, Fidelity
from worker.compression.passes import AnyPass
from worker.compression.provenance import code, machine
from worker.compression.report import Warned
from worker.compression.search.trial import SPENT, Trial
from worker.compression.subject import Subject, digest

# Larger files cost more room than they save time.
_LARGEST = 1 << 30
_PASSES: TypeAdapter[list[AnyPass]] = TypeAdapter(list[AnyPass])
_EFFECTS = TypeAdapter(dict[str, float])


@dataclass(frozen=True)
class Memory:
    """Trials by recipe, in a folder; without one nothing is remembered."""

    folder: Path | None
    identity: str

    def recall(self, name: str, passes: Sequence[AnyPass]) -> Trial | None:
        """The trial as it was found before; None where it was not, or its file is gone.

        A latency that was not measured in quiet is left out: it has to be measured again.
        """
        if self.folder is None:
            return None
        try:
            found = json.loads(self._record(passes).read_text())
            return self._trial(name, passes, found)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            # A record of another version, half a record, or a file that is not what it was.
            self._distrust(passes)
            return None

    def _distrust(self, passes: Sequence[AnyPass]) -> None:
        self._record(passes).unlink(missing_ok=True)
        warnings.warn(
            CompressionWarning(
                "what an earlier search left in the cache is damaged, and was not used",
                code="cache_ignored",
            ),
            stacklevel=3,
        )

    def keep(self, trials: Sequence[Trial]) -> None:
        """Remember what was measured, and what was refused."""
        if self.folder is None:
            return
        (self.folder / "files").mkdir(parents=True, exist_ok=True)
        for one in trials:
            if one.recalled or one.reason == SPENT:
                continue
            record = self._record(one.passes)
            part = record.with_suffix(".part")
            part.write_text(json.dumps(self._described(one)))
            part.replace(record)

    def effects(self, passes: Sequence[AnyPass]) -> dict[str, float]:
        """Error power by layer, as kept; empty where it was not."""
        if self.folder is None:
            return {}
        try:
            return _EFFECTS.validate_json(self._effects(passes).read_bytes())
        except (OSError, ValidationError):
            return {}

    def keep_effects(self, passes: Sequence[AnyPass], effects: Mapping[str, float]) -> None:
        """Remember what each layer does to the outputs."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._effects(passes).write_text(json.dumps(effects))

    def _effects(self, passes: Sequence[AnyPass]) -> Path:
        return self._record(passes).with_suffix(".effects.json")

    def _record(self, passes: Sequence[AnyPass]) -> Path:
        if self.folder is None:
            raise ValueError("there is no folder to remember in")
        text = self.identity + _PASSES.dump_json(list(passes)).decode()
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json"

    def _described(self, one: Trial) -> dict[str, Any]:
        stays = bool(one.made) and all(made.path.exists() for made in one.made)
        return {
            "reason": one.reason,
            "bytes": one.bytes,
            "fidelity": one.fidelity.model_dump(mode="json") if one.fidelity else None,
            "accuracy": one.accuracy.model_dump(mode="json") if one.accuracy else None,
            "seen": one.seen.model_dump(mode="json") if one.seen else None,
            "latency": one.latency.model_dump(mode="json") if one.latency else None,
            "made": [self._step(made) for made in one.made] if stays else [],
        }

    def _step(self, made: Made) -> dict[str, Any]:
        return {
            "file": self._stored(made.path),
            "seconds": made.seconds,
            "warnings": [warned.model_dump() for warned in made.warnings],
            "notes": made.notes,
            "extra": made.extra,
        }

    def _stored(self, path: Path) -> str | None:
        if self.folder is None or graph.external_files(path) or path.stat().st_size > _LARGEST:
            return None
        name = f"{digest(path)}.onnx"
        place = self.folder / "files" / name
        if not place.exists():
            try:
                os.link(path, place)
            except OSError:
                shutil.copyfile(path, place)
        return name

    def _trial(self, name: str, passes: Sequence[AnyPass], found: dict[str, Any]) -> Trial:
        steps = [
            self._made(pass_, step) for pass_, step in zip(passes, found["made"], strict=False)
        ]
        latency, accuracy = found["latency"], found["accuracy"]
        timed = Latency.model_validate(latency) if latency else None
        if timed and timed.verdict == "unreliable":
            timed = None
        return Trial(
            name=name,
            passes=passes,
            made=steps,
            reason=found["reason"],
            bytes=found["bytes"],
            fidelity=Fidelity.model_validate(found["fidelity"]) if found["fidelity"] else None,
            accuracy=Accuracy.model_validate(accuracy) if accuracy else None,
            latency=timed,
            seen=Fidelity.model_validate(found["seen"]) if found["seen"] else None,
            recalled=True,
        )

    def _made(self, pass_: AnyPass, step: dict[str, Any]) -> Made:
        if self.folder is None:
            raise ValueError("there is no folder to remember in")
        path = self.folder / "files" / step["file"]
        if path.name != f"{digest(path)}.onnx":
            path.unlink()
            raise ValueError("the file is not what was put there")
        return Made(
            path=path,
            pass_=pass_,
            seconds=step["seconds"],
            warnings=[Warned.model_validate(warned) for warned in step["warnings"]],
            notes=step["notes"],
            extra=step["extra"],
        )


def identity(subject: Subject) -> str:
    """All that a trial depends on besides its passes: bounds and budgets are not among it."""
    recipe = subject.recipe
    return json.dumps(
        {
            "files": subject.sha256,
            "kinds": subject.kinds,
            "target": recipe.target.model_dump(),
            "images": recipe.images.model_dump(mode="json") if recipe.images else None,
            "inputs": subject.inputs,
            "seed": recipe.seed,
            "metric": None if subject.scores is None else subject.scores.tolist(),
            "machine": machine().model_dump(),
            "code": code(),
        },
        sort_keys=True,
        default=str,
    )
