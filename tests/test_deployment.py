"""The files of a deployment fit each other, the images and the settings.

That they are what an engine and a cluster take, `make check` asks their schemas.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.serve import _WORKER_STOP_MARGIN_SECONDS
from worker.settings import Settings

ROOT = Path(__file__).parent.parent
OURS = ("prepare", "web", "worker", "worker-small")
# What others read, or the containers' programs by themselves.
FOREIGN = re.compile(
    r"AWS_[A-Z0-9_]+|S3_[A-Z_]+|POSTGRES_[A-Z]+|ORT_DISABLE_TELEMETRY|PYTHON[A-Z]+|PATH"
)


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def manifests() -> list[dict[str, Any]]:
    text = (ROOT / "deploy" / "kubernetes" / "modelpress.yaml").read_text()
    return list(yaml.safe_load_all(text))


def pods() -> dict[str, dict[str, Any]]:
    """The specification of every pod, by the name of what makes it."""
    return {
        found["metadata"]["name"]: found["spec"]["template"]["spec"]
        for found in manifests()
        if "template" in found.get("spec", {})
    }


def stages() -> dict[str, str]:
    """The text of each stage of the Dockerfile, with that of the stage it goes on from."""
    found: dict[str, str] = {}
    for text in re.split(r"^(?=FROM )", (ROOT / "Dockerfile").read_text(), flags=re.M)[1:]:
        base, name = re.match(r"FROM (\S+) AS (\S+)", text).groups()  # type: ignore[union-attr]
        found[name] = found.get(base, "") + text
    return found


def last(stage: str, instruction: str) -> list[str]:
    said = re.findall(rf"^{instruction}[^\[]*(\[.*\])$", stages()[stage], re.M)
    command: list[str] = json.loads(said[-1])
    return command


def environment_of_image(stage: str) -> dict[str, str]:
    lines = re.findall(r"^ENV ((?:.*\\\n)*.*)$", stages()[stage], re.M)
    return dict(re.findall(r"(\w+)=(\S+)", " ".join(lines)))


def environments() -> Iterator[tuple[str, dict[str, str]]]:
    for stage in ("web", "worker"):
        yield f"image {stage}", environment_of_image(stage)
    for name, service in services().items():
        yield f"compose {name}", service.get("environment", {})
    settings = next(found for found in manifests() if found["kind"] == "ConfigMap")["data"]
    for name, pod in pods().items():
        (container,) = pod["containers"]
        more = {one["name"]: one["value"] for one in container.get("env", [])}
        yield f"kubernetes {name}", settings | more


def settings_of(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What a process of ours makes of an environment; raises where it makes nothing of it."""
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return Settings()


@pytest.mark.parametrize(
    "given", [pytest.param(given, id=where) for where, given in environments()]
)
def test_every_variable_is_one_that_somebody_reads(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {f"MODELPRESS_{name.upper()}" for name in Settings.model_fields}
    assert [name for name in given if name not in known and not FOREIGN.fullmatch(name)] == []
    mine = {name: value for name, value in given.items() if name in known}
    assert settings_of(mine, monkeypatch).model_fields_set == {
        name.removeprefix("MODELPRESS_").lower() for name in mine
    }


@pytest.mark.parametrize("name", services())
def test_every_container_of_the_compose_file_is_locked_and_limited(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
    assert service["networks"][0] == "inside"
    assert any(where.startswith(("/tmp:", "/data:")) for where in service["tmpfs"])  # noqa: S108
    if name not in OURS:
        assert "healthcheck" in service
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")
    if name in ("redis", "postgres"):
        assert service["user"] == "999:999"


def test_the_compose_file_builds_the_images_and_keeps_their_commands() -> None:
    for name in OURS:
        stage = services()[name]["build"]["target"]
        assert "HEALTHCHECK" in stages()[stage]
        assert "USER 10001:10001" in stages()[stage]
        assert "entrypoint" not in services()[name]
        assert ("command" in services()[name]) == (name == "prepare")
    assert compose()["networks"]["inside"] == {"internal": True}


def test_every_volume_is_declared_and_every_written_folder_is_one() -> None:
    for name in OURS:
        service = services()[name]
        mounts = [*service.get("volumes", []), *service["tmpfs"]]
        sources = {one.partition(":")[0] for one in service.get("volumes", [])}
        assert sources <= set(compose()["volumes"])
        folders = {one.partition(":")[2] for one in service.get("volumes", [])}
        folders |= {one.partition(":")[0] for one in service["tmpfs"]}
        assert {"/data", "/tmp"} <= folders, mounts  # noqa: S108
        lock = service["environment"].get("MODELPRESS_MEASURING_LOCK", "/data")
        assert str(Path(lock).parent) in folders | {"/"}


def test_the_workers_of_a_host_measure_one_at_a_time_and_take_every_class() -> None:
    workers = [s for s in services().values() if s.get("build", {}).get("target") == "worker"]
    assert len(workers) >= 2
    assert len({s["environment"]["MODELPRESS_MEASURING_LOCK"] for s in workers}) == 1
    classes = {s["environment"]["MODELPRESS_CLASSES"] for s in workers}
    assert classes == {"small", "small,large"}
    assert len({s["volumes"][0] for s in workers}) == len(workers)  # each has its own data


@pytest.mark.parametrize("name", pods())
def test_every_pod_is_locked_and_limited(name: str) -> None:
    pod = pods()[name]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    user = pod["securityContext"]
    assert (user["runAsNonRoot"], user["runAsUser"]) == (True, 10001)
    assert user["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    assert "memory" in container["resources"]["limits"]
    folders = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert folders == {"data": "/data", "tmp": "/tmp"}  # noqa: S108
    assert {volume["name"] for volume in pod["volumes"]} == set(folders)
    assert container["image"].removeprefix("modelpress-") in stages()


def test_pods_that_serve_tell_whether_they_live_and_keep_the_images_commands() -> None:
    for name, pod in pods().items():
        (container,) = pod["containers"]
        if name == "modelpress-migrate":
            continue
        assert {"startupProbe", "livenessProbe"} <= set(container)
        assert "command" not in container
        assert "args" not in container
        if container["name"] == "worker":  # the same question as the image asks
            asked = container["livenessProbe"]["exec"]["command"]
            assert asked == last("worker", "HEALTHCHECK")
    (web,) = pods()["modelpress-web"]["containers"]
    assert web["readinessProbe"]["httpGet"]["path"] == "/healthz"
    port = int(environment_of_image("web")["MODELPRESS_PORT"])
    assert web["ports"] == [{"name": "http", "containerPort": port}]


def test_a_stopping_worker_has_the_time_that_it_gives_its_job() -> None:
    least = Settings().stop_grace_seconds + _WORKER_STOP_MARGIN_SECONDS
    for name in ("worker", "worker-small"):
        assert int(services()[name]["stop_grace_period"].removesuffix("s")) >= least
        pod = pods()[f"modelpress-{name}"]
        assert pod["terminationGracePeriodSeconds"] >= least


def test_selectors_find_the_pods_that_they_mean() -> None:
    labels = [
        found["spec"]["template"]["metadata"]["labels"]
        for found in manifests()
        if "template" in found.get("spec", {})
    ]
    for found in manifests():
        spec = found.get("spec", {})
        wanted = spec.get("selector") or spec.get("podSelector")
        if not wanted:
            continue
        for one in wanted.get("matchExpressions", []):
            assert set(one["values"]) == {label[one["key"]] for label in labels}
        exact = wanted.get("matchLabels", wanted if "matchExpressions" not in wanted else {})
        assert [label for label in labels if exact.items() <= label.items()]
    kinds = [found["kind"] for found in manifests()]
    assert kinds.count("PodDisruptionBudget") == 2


def test_the_schema_is_made_by_the_command_that_the_documentation_names() -> None:
    (container,) = pods()["modelpress-migrate"]["containers"]
    command = " ".join(container["command"])
    assert command == "python -m worker.jobs"
    assert command in (ROOT / "docs" / "deployment.md").read_text()
