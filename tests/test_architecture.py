"""Promises about the whole: what the web process loads, what is exported, who imports whom."""

import json
import subprocess
import sys
from pathlib import Path

import worker.compression

ROOT = Path(__file__).parent.parent

START = """
import json, sys
from pathlib import Path
from app.main import create_app
from worker.settings import Settings
create_app(Settings(data_dir=Path(sys.argv[1])))
print(json.dumps(sorted(sys.modules)))
"""


def test_web_process_loads_neither_torch_nor_what_parses_models(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", START, tmp_path],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "app.main" in loaded
    assert not loaded & {"torch", "onnxscript", "sklearn", "scipy", "worker.child"}


def test_front_door_of_the_library_is_sorted_and_complete() -> None:
    names = worker.compression.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name))
    assert not [name for name in names if not hasattr(worker.compression, name)]
    assert {"Recipe", "Report", "compress", "inspect"} <= set(names)


def test_imports_go_one_way() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:]
