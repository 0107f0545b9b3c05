"""Generated files for a deployment: a validator of each kind accepts them, and their parts fit together."""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import click
import pytest
import yaml

from asgi_bridge.cli import cli, options
from asgi_bridge.generate.apisix import config_yaml
from asgi_bridge.generate.docker import compose, dockerfile
from asgi_bridge.generate.kubernetes import helm_values, manifest
from asgi_bridge.generate.runner import Deployed
from asgi_bridge.generate.systemd import systemd_unit
from asgi_bridge.loading import Source
from asgi_bridge.supervisor.cores import usable_cores

EXAMPLES = Path(__file__).parents[2] / "examples" / "deploy"

PLAIN = Source("gate:bridge")
STRANGE = Source(
    "shop.gate:bridge",
    {"a b": "shop:x", "c'\"\\$HOME%i#": "shop:y"},
    allow=("https://idp.test/a?b=%20&c={{d}}", "/etc/keys/", "redis://10.0.0.5"),
)
"""Plugins whose names and permissions mean something to one kind of file or another."""
sources = pytest.mark.parametrize("source", [PLAIN, STRANGE], ids=["plain", "strange"])


def sidecar(source: Source, home: str = "/opt/gate", uds: str = "/run/gate/runner.sock") -> Deployed:
    return Deployed(source, home, uds, private=True)


def spawned(source: Source) -> Deployed:
    return Deployed(source, "/opt/gate", None)


def validated(program: str, *arguments: str) -> None:
    """Run a validator, of the environment or of the machine. Skips the test where there is none."""
    found = shutil.which(program, path=Path(sys.executable).parent) or shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run([found, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def options_of(command: list[str]) -> dict[str, Any]:
    """Return what our command line reads from the command of a runner. Fails on an unknown option."""
    assert command[:2] == ["/opt/gate/.venv/bin/asgi-bridge", "run"]
    parent = click.Context(cli, **cli.context_settings)
    with mock.patch.object(options.FOLDER, "exists", False):  # its folders exist in the image only
        return cli.commands["run"].make_context("run", command[2:], parent=parent).params


def assert_it_runs(command: list[str], source: Source, uds: str | None, permissions: int) -> None:
    read = options_of(command)
    assert (read["target"], dict(read["mounts"]), read["allow"]) == (source.target, source.mounts, source.allow)
    assert (read["app_dir"], read["uds"], read["uds_permissions"]) == ("/opt/gate", uds, permissions)
    assert read["workers"] == usable_cores()


def health(uds: str) -> list[str]:
    return ["/opt/gate/.venv/bin/asgi-bridge", "health", "--uds", uds]


def instructions(text: str) -> list[str]:
    """The instructions of a Dockerfile, each on one line."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [" ".join(line.split()) for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line]


def written(folder: Path, texts: Iterable[str]) -> list[str]:
    """Write each text into a file. Returns their paths. Validators start slowly, so one looks at several files."""
    paths = []
    for number, text in enumerate(texts):
        path = folder / f"{number}.yaml"
        path.write_text(text)
        paths.append(str(path))
    return paths


def shipped(name: str) -> list[str]:
    """Paths of the files of this name in examples/deploy/."""
    found = [str(path) for path in sorted(EXAMPLES.rglob(name))]
    assert found != []
    return found


def test_hadolint_accepts_the_dockerfiles(tmp_path: Path) -> None:
    files = [
        dockerfile("gate", make(source), ["gate.py", "shop/"], "requirements.txt", wheels)
        for make in (sidecar, spawned)
        for source in (PLAIN, STRANGE)
        for wheels in (None, "wheels/")
    ]
    validated("hadolint", "--failure-threshold", "style", *written(tmp_path, files), *shipped("Dockerfile"))


@sources
def test_the_image_of_a_sidecar_is_slim_and_not_root(source: Source) -> None:
    found = instructions(dockerfile("gate", sidecar(source), ["gate.py"], "requirements.txt"))
    assert [line for line in found if line.startswith(("FROM", "USER", "COPY --from"))] == [
        "FROM python:3.12-slim AS build",
        "FROM python:3.12-slim",
        "COPY --from=build /opt/gate/.venv /opt/gate/.venv",
        "USER 636:636",
    ]
    check, command = found[-2:]
    assert check.startswith("HEALTHCHECK ")
    assert json.loads(check.partition(" CMD ")[2]) == health("/run/gate/runner.sock")
    assert_it_runs(json.loads(command.removeprefix("CMD ")), source, "/run/gate/runner.sock", 0o600)


def test_the_image_with_apisix_ends_as_apisix_user() -> None:
    found = instructions(dockerfile("gate", spawned(PLAIN), ["gate.py"], "requirements.txt"))
    assert [line for line in found if line.startswith(("FROM", "USER"))] == [
        "FROM apache/apisix:3.18.0-ubuntu AS build", "USER 0",
        "FROM apache/apisix:3.18.0-ubuntu", "USER 0", "USER 636:636",
    ]  # fmt: skip
    assert json.loads(found[-1].partition(" CMD ")[2]) == health("/usr/local/apisix/conf/apisix-1.sock")
    # APISIX's own entry point and command stay
    assert [line for line in found if line.startswith(("CMD", "ENTRYPOINT"))] == []


@sources
def test_apisix_starts_the_runner_or_knows_its_socket(source: Source) -> None:
    config = yaml.safe_load(config_yaml(spawned(source), env=["TOKEN"]))
    assert_it_runs(config["ext-plugin"]["cmd"], source, None, 0o666)
    assert config["nginx_config"] == {"envs": ["TOKEN"]}
    assert yaml.safe_load(config_yaml(sidecar(source))) == {"ext-plugin": {"path_for_test": "/run/gate/runner.sock"}}


def test_the_schema_of_compose_files_accepts_ours(tmp_path: Path) -> None:
    files = [
        compose("gate", uds, upstream=upstream) for uds in ("/run/gate/runner.sock", None) for upstream in (True, False)
    ]
    validated(
        "check-jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        *written(tmp_path, files),
        *shipped("compose.yaml"),
    )


def test_gateway_and_runner_share_a_volume() -> None:
    services = yaml.safe_load(compose("gate", "/run/gate/runner.sock"))["services"]
    assert "socket:/run/gate" in services["gateway"]["volumes"]
    assert services["runner"]["volumes"] == ["socket:/run/gate"]
    assert services["gateway"]["depends_on"] == {"runner": {"condition": "service_healthy"}}


def assert_is_sidecar(container: Mapping[str, Any], source: Source, image: str) -> None:
    assert (container["image"], container["restartPolicy"]) == (image, "Always")
    assert_it_runs(container["command"], source, "/run/gate/runner.sock", 0o600)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["exec"]["command"] == health("/run/gate/runner.sock")
    security = container["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"], security["readOnlyRootFilesystem"]) == (True, 636, True)
    assert {"name": "socket", "mountPath": "/run/gate"} in container["volumeMounts"]


def test_kubernetes_accepts_the_resources(tmp_path: Path) -> None:
    files = [
        manifest("gate", sidecar(source), "registry.test/gate:1", upstream=upstream)
        for source in (PLAIN, STRANGE)
        for upstream in (True, False)
    ]
    files += [yaml.safe_dump(pod_of(sidecar(source))) for source in (PLAIN, STRANGE)]
    validated(
        "kubernetes-validate",
        "--strict",
        "--kubernetes-version",
        "1.29",
        *written(tmp_path, files),
        *shipped("gate.yaml"),
    )


def pod_of(runner: Deployed) -> dict[str, Any]:
    """The pod that APISIX's chart makes of our values, as far as they go into it."""
    values = yaml.safe_load(helm_values("gate", runner, "registry.test/gate:1"))
    gateway = {
        "name": "apisix", "image": "apisix", "env": values["extraEnvVars"], "volumeMounts": values["extraVolumeMounts"],
    }  # fmt: skip
    spec = {
        "initContainers": values["extraInitContainers"], "containers": [gateway], "volumes": values["extraVolumes"],
    }  # fmt: skip
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "apisix"}, "spec": spec}


@sources
def test_gateway_and_runner_share_a_folder_of_the_pod(source: Source) -> None:
    deployment, service = yaml.safe_load_all(manifest("gate", sidecar(source), "registry.test/gate:1", replicas=3))
    pod = deployment["spec"]["template"]["spec"]
    (runner,), (gateway,) = pod["initContainers"], pod["containers"]
    assert_is_sidecar(runner, source, "registry.test/gate:1")
    assert {"name": "socket", "mountPath": "/run/gate"} in gateway["volumeMounts"]
    assert [volume["name"] for volume in pod["volumes"]] == ["socket", "tmp", "conf"]
    assert deployment["spec"]["replicas"] == 3
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]


def test_an_admin_port_is_in_the_command_and_in_the_readiness_probe(tmp_path: Path) -> None:
    runner = Deployed(PLAIN, "/opt/gate", "/run/gate/runner.sock", private=True, workers="3", admin_port=9092)
    text = manifest("gate", runner, "registry.test/gate:1")
    found = [
        yaml.safe_load_all(text).__next__()["spec"]["template"]["spec"]["initContainers"],
        yaml.safe_load(helm_values("gate", runner, "registry.test/gate:1"))["extraInitContainers"],
    ]
    for (container,) in found:
        read = options_of(container["command"])
        assert (read["workers"], read["admin"], read["admin_public"]) == (3, "0.0.0.0:9092", True)
        assert container["ports"] == [{"name": "admin", "containerPort": 9092}]
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "admin"}
        assert container["livenessProbe"]["exec"]["command"] == health("/run/gate/runner.sock")
    files = written(tmp_path, [text, yaml.safe_dump(pod_of(runner))])
    validated("kubernetes-validate", "--strict", "--kubernetes-version", "1.29", *files)


CHART = {
    "image": {"repository", "tag"},
    "apisix": {"deployment", "admin", "fullCustomConfig"},
    "etcd": {"enabled"},
    "externalEtcd": {"user"},
    "extraEnvVars": set[str](),
    "extraVolumes": set[str](),
    "extraVolumeMounts": set[str](),
    "extraInitContainers": set[str](),
}
"""Values of APISIX's chart 2.14.0 that we use."""


@sources
def test_the_values_are_those_of_the_chart(source: Source) -> None:
    values = yaml.safe_load(helm_values("gate", sidecar(source), "registry.test/gate:1"))
    assert {name: set(found) if isinstance(found, dict) else set() for name, found in values.items()} == CHART
    assert values["apisix"]["fullCustomConfig"]["config"] == {
        "deployment": {"role": "data_plane", "role_data_plane": {"config_provider": "yaml"}},
        "ext-plugin": {"path_for_test": "/run/gate/runner.sock"},
    }
    (runner,) = values["extraInitContainers"]
    assert_is_sidecar(runner, source, "registry.test/gate:1")


@sources
@pytest.mark.parametrize("uds", ["/run/gate/runner.sock", "/run/gate/deep/runner.sock", "/srv/sockets/runner.sock"])
def test_systemd_accepts_the_unit(tmp_path: Path, source: Source, uds: str) -> None:
    program = tmp_path / ".venv/bin/asgi-bridge"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = tmp_path / "gate.service"
    path.write_text(systemd_unit("gate", sidecar(source, str(tmp_path), uds)))
    validated("systemd-analyze", "verify", str(path))


@pytest.mark.parametrize(
    ("uds", "home", "lines"),
    [
        ("/run/gate/runner.sock", "/opt/gate", ["RuntimeDirectory=gate", "RuntimeDirectoryPreserve=restart",
         "ProtectHome=yes"]),
        ("/srv/x/runner.sock", "/home/me/gate", ["ReadWritePaths=/srv/x", "ProtectHome=read-only"]),
    ],
)  # fmt: skip
def test_the_unit_may_write_to_the_folder_of_its_socket(uds: str, home: str, lines: list[str]) -> None:
    unit = systemd_unit("gate", Deployed(PLAIN, home, uds)).splitlines()
    assert [line for line in unit if line.startswith(("RuntimeDirectory", "ReadWritePaths", "ProtectHome"))] == lines


@sources
def test_the_unit_starts_the_runner(source: Source) -> None:
    unit = systemd_unit("gate", Deployed(source, "/opt/gate", "/run/gate/runner.sock"))
    started = unit.partition("ExecStart=")[2].partition("\n#")[0].replace("\\\n", " ")
    # systemd's quoting is that of a shell here, but for its own two signs
    words = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(started)]
    assert_it_runs(words, source, "/run/gate/runner.sock", 0o666)
