"""The documentation is complete, and every command in it runs."""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from app.main import create_app
from tests.servers import free_port, stop, wait_for_port
from worker.compression import PRESETS, Recipe
from worker.compression.calibration import IMAGE_PRESETS, Images
from worker.compression.passes import AnyPass, Target
from worker.compression.recipe import Goal
from worker.compression.report import Outcome
from worker.isolation.ended import Cause
from worker.settings import Settings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
METHODS: tuple[type[BaseModel], ...] = get_args(get_args(AnyPass)[0])
SNAKE = re.compile(r"[a-z]+(_[a-z0-9]+)+$")
ADDRESS = "127.0.0.1:8000"


def page(name: str) -> str:
    return (DOCS / name).read_text()


@pytest.mark.parametrize("model", [Recipe, Goal, Target, Images, *METHODS], ids=str)
def test_every_setting_of_a_recipe_is_documented(model: type[BaseModel]) -> None:
    text = page("recipe.md")
    if model in METHODS:
        heading = f"### {model.model_fields['method'].default}\n"
        assert heading in text
        text = text.split(heading)[1].split("\n### ")[0]
    fields = set(model.model_fields) - {"method"}
    assert not [name for name in fields if f"`{name}`" not in text]


def test_every_preset_is_documented() -> None:
    assert not [name for name in PRESETS if f"| `{name}` |" not in page("recipe.md")]


def test_every_preset_of_images_is_documented() -> None:
    assert not [name for name in IMAGE_PRESETS if f"| `{name}` |" not in page("data.md")]


def test_every_outcome_is_documented() -> None:
    assert not [
        name for name in get_args(Outcome) if f"| `{name}` |" not in page("concepts.md")
    ]


def test_every_environment_setting_is_documented() -> None:
    names = [f"MODELPRESS_{name.upper()}" for name in Settings.model_fields]
    assert not [name for name in names if f"| `{name}` |" not in page("operations.md")]


def test_every_command_is_documented() -> None:
    shown = subprocess.run(
        ["modelpress", "--help"], env=environment(), capture_output=True, text=True, check=True
    )
    commands = re.findall(r"^    ([a-z]+)  ", shown.stdout, re.MULTILINE)
    assert "serve" in commands
    assert not [name for name in commands if f"| `{name}` |" not in page("cli.md")]


def test_every_route_is_documented(tmp_path: Path) -> None:
    paths = create_app(Settings(data_dir=tmp_path)).openapi()["paths"]
    routes = [
        f"{method.upper()} {path}" for path, methods in paths.items() for method in methods
    ]
    assert len(routes) > 15
    assert not [route for route in routes if f"`{route}`" not in page("api.md")]


def test_every_code_is_documented_and_no_other() -> None:
    documented = set(re.findall(r"^\| `([a-z_0-9]+)` \|", page("errors.md"), re.MULTILINE))
    assert documented == codes()


def codes() -> set[str]:
    """Every stable code that the source can give: of errors, ended jobs and warnings."""
    found = {str(cause) for cause in Cause} - {"done", "failed"}
    for path in [*(ROOT / "app").rglob("*.py"), *(ROOT / "worker").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            found |= set(codes_of(node))
    return found - {"job_error"}  # the base class; never raised itself


def codes_of(node: ast.AST) -> Iterator[str]:
    """Codes that a node names: `code=`, `code =`, a table, or the first word of a Refusal."""
    named: list[ast.expr | None] = []
    if isinstance(node, ast.Call):
        named += [word.value for word in node.keywords if word.arg == "code"]
        if isinstance(node.func, ast.Name) and node.func.id in ("Refusal", "refusal", "_warn"):
            named += [
                word for word in node.args[:1] if constant(word) and SNAKE.match(word.value)
            ]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = {target.id for target in targets if isinstance(target, ast.Name)}
        if "code" in names:
            named.append(node.value)
        if names & {"CODES", "_REFUSALS"} and isinstance(node.value, ast.Dict):
            named += node.value.keys
    for value in named:
        if isinstance(value, ast.IfExp):
            yield from (str(e.value) for e in (value.body, value.orelse) if constant(e))
        elif constant(value):
            yield str(value.value)


def constant(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def dependencies() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = chain.from_iterable(project["optional-dependencies"].values())
    names = {re.split(r"[\[<>=]", line)[0] for line in [*project["dependencies"], *extras]}
    return names - {"modelpress"}


def test_every_dependency_has_its_reason() -> None:
    text = page("dependencies.md")
    missing = [n for n in dependencies() if not re.search(rf"[| ,]{re.escape(n)}[ ,|]", text)]
    assert not missing


def test_every_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().lower().replace("_", "-").splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    assert not {name.lower() for name in dependencies()} - pinned


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", path.read_text())
    local = [link for link in links if link and "://" not in link]
    assert not [link for link in local if not (path.parent / link).exists()]


def blocks(path: Path) -> list[tuple[str, str]]:
    """Shell blocks of a page, each with the comment before it."""
    pattern = r"(?:<!-- ([^>]*) -->\n)?```(?:bash|console)\n(.*?)```"
    return re.findall(pattern, path.read_text(), re.DOTALL)


@cache
def sources() -> str:
    """The text of all tests."""
    return "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_shell_block_is_run_by_a_test(path: Path) -> None:
    for comment, script in blocks(path):
        test = comment.removeprefix("run by ")
        assert comment in ("run", "run by pytest") or f"def {test}(" in sources(), script


RUN = {  # a script that stands on two pages runs once
    script: f"{path.stem}-{number}"
    for path in PAGES
    for number, (comment, script) in enumerate(blocks(path), start=1)
    if comment == "run"
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a `modelpress serve` of our own."""
    port = free_port()
    folder = tmp_path_factory.mktemp("serve")
    command = ["modelpress", "serve", "--port", str(port), "--data-dir", str(folder)]
    with (folder / "serve.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment(), stdout=log, stderr=log)
    try:
        wait_for_port(server, port)
        yield f"127.0.0.1:{port}"
    finally:
        stop(server, seconds=40)


def environment() -> dict[str, str]:
    """The environment with the commands of this interpreter first on the path."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.mark.system
@pytest.mark.parametrize("script", RUN, ids=RUN.values())
def test_documented_commands_run(script: str, tmp_path: Path, address: str) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace(ADDRESS, address)],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    ("target", "command"),
    [("demo", "examples/digits/demo.py"), ("serve", "modelpress serve"), ("test", "-m pytest")],
)
def test_make_calls_what_is_tested_here(target: str, command: str) -> None:
    make = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert command in make.stdout


@pytest.mark.system
def test_demo_ends_well(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples/digits/demo.py"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=280,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert (tmp_path / "demo-data/digits.pt/report.html").exists()


@pytest.mark.system
def test_web_and_worker_start_apart(tmp_path: Path) -> None:
    port = free_port()
    variables = environment() | {"MODELPRESS_DATA_DIR": str(tmp_path / "data")}
    variables["MODELPRESS_PORT"] = str(port)
    script = next(s for _, s in blocks(DOCS / "deployment.md") if "app.web" in s)
    started = []
    try:
        (tmp_path / "data").mkdir(mode=0o700)
        migrate, *commands = (shlex.split(line) for line in script.splitlines())
        subprocess.run(migrate, env=variables, cwd=ROOT, check=True)
        for command in commands:
            process = subprocess.Popen(command, env=variables, cwd=ROOT)
            started.append(process)
        wait_for_port(started[0], port)
        wait = f"curl -sS --retry 40 --retry-delay 1 --fail http://127.0.0.1:{port}/readyz"
        ready = subprocess.run(wait.split(), capture_output=True, text=True, check=False)
        assert ready.returncode == 0, ready.stderr[-1000:]
    finally:
        for process in reversed(started):
            stop(process, seconds=40)
