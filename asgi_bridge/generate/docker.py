"""Containers: the Dockerfile of the runner, and a ``compose.yaml``."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigurationError
from ..loading import Source
from .runner import APISIX_IMAGE, APISIX_USER, GRACE_SECONDS, Deployed, json_list, socket_folder
from .yaml_text import flow

__all__ = ["compose", "dockerfile", "modules_of"]

_ALONE = """\
# The runner in an image of its own, to run beside APISIX.
#   docker build -t {name} .
FROM python:3.12-slim AS build
COPY {requirements} /tmp/requirements.txt
{wheels}RUN python -m venv {home}/.venv \\
    && {home}/.venv/bin/pip install --no-cache-dir {links}-r /tmp/requirements.txt

FROM python:3.12-slim
# The user that APISIX has in its own image. The folder is for the socket; a volume there takes its owner over.
RUN groupadd --system --gid {user} apisix \\
    && useradd --system --uid {user} --gid {user} --no-create-home --shell /usr/sbin/nologin apisix \\
    && install -d -o {user} -g {user} -m 0700 {folder}
COPY --from=build {home}/.venv {home}/.venv
{code}USER {user}:{user}
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \\
    CMD {health}
CMD {command}
"""

_WITH_APISIX = """\
# APISIX with the runner in one image. APISIX starts the runner.
#   docker build -t {name} .
FROM {image} AS build
# hadolint ignore=DL3002
USER 0
# The image is Ubuntu 24.04, which has Python 3.12, and keeps no older versions of it to pin.
# hadolint ignore=DL3008
RUN apt-get update \\
    && apt-get install -y --no-install-recommends python3 python3-venv \\
    && rm -rf /var/lib/apt/lists/*
COPY {requirements} /tmp/requirements.txt
{wheels}RUN python3 -m venv {home}/.venv \\
    && {home}/.venv/bin/pip install --no-cache-dir {links}-r /tmp/requirements.txt

FROM {image}
USER 0
# hadolint ignore=DL3008
RUN apt-get update \\
    && apt-get install -y --no-install-recommends python3 \\
    && rm -rf /var/lib/apt/lists/*
COPY --from=build {home}/.venv {home}/.venv
{code}COPY --chown={user}:{user} config.yaml apisix.yaml /usr/local/apisix/conf/
# The user of APISIX's image. The runner has the rights of the user that starts it.
USER {user}:{user}
# Without this, the image's entry point looks for etcd.
ENV APISIX_STAND_ALONE=true
# APISIX is process 1 of the container, and names the runner's socket after that.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \\
    CMD {health}
"""


def modules_of(source: Source) -> list[str]:
    """Return the files and folders of the modules that a source names, as far as they are in its folder.

    Args:
        source: The plugins. Modules that are not in its folder are taken for installed ones.

    Raises:
        ConfigurationError: The source has no target and no mounts, so it names no modules.
    """
    named = [target for target in (source.target, *source.mounts.values()) if target]
    if source.target is None:
        raise ConfigurationError(
            "without a TARGET nobody knows which files are your code; name them: --copy pyproject.toml --copy src/"
        )
    found: dict[str, None] = {}
    for target in named:
        top = target.partition(":")[0].partition(".")[0]
        for name in (f"{top}/", f"{top}.py"):
            if Path(source.app_dir or ".", name).exists():
                found[name] = None
                break
    return list(found)


def dockerfile(name: str, runner: Deployed, copied: Sequence[str], requirements: str, wheels: str | None = None) -> str:
    """Return a Dockerfile: of the runner alone, or without a socket path of APISIX with the runner.

    Args:
        name: Of the image.
        runner: The runner.
        copied: Files and folders of the user's code, beside the Dockerfile.
        requirements: Name of pip's file of requirements, beside the Dockerfile. It names ``asgi_bridge``.
        wheels: Folder with wheels beside the Dockerfile, which pip may install; None: there is none.
    """
    code = "".join(f"COPY {path} {runner.home}/{path.rstrip('/') if path.endswith('/') else ''}\n" for path in copied)
    values = {
        "name": name, "home": runner.home, "requirements": requirements, "code": code,
        "wheels": f"COPY {wheels.rstrip('/')} /tmp/wheels\n" if wheels else "",
        "links": "--find-links /tmp/wheels " if wheels else "",
        "health": json_list(runner.health, " \\\n    "), "command": json_list(runner.command, " \\\n    "),
    }  # fmt: skip
    if runner.uds is None:
        return _WITH_APISIX.format(image=APISIX_IMAGE, user=APISIX_USER, **values)
    return _ALONE.format(user=APISIX_USER, folder=socket_folder(runner.uds), **values)


_SAFE = """\
    restart: unless-stopped
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
"""

_COMPOSE_ONE = """\
# APISIX with the runner in one container.
#   docker compose up --build
services:
  gateway:
    build: .
    image: {name}
    ports: ["9080:9080"]
{safe}"""

_COMPOSE_TWO = """\
# APISIX, and the runner in a container of its own. They share a socket in a volume.
#   docker compose up --build
services:
  gateway:
    image: {image}
    environment:
      # Without this, the image's entry point looks for etcd.
      APISIX_STAND_ALONE: "true"
    ports: ["9080:9080"]
    volumes:
      - socket:{folder}
      - ./config.yaml:/usr/local/apisix/conf/config.yaml:ro
      - ./apisix.yaml:/usr/local/apisix/conf/apisix.yaml:ro
    # It starts once the runner answers, and ends before it.
    depends_on:
      runner: {{condition: service_healthy}}
{safe}
  # Its Dockerfile has the health check.
  runner:
    build: .
    image: {name}
    read_only: true
    tmpfs: [/tmp]
    volumes:
      - socket:{folder}
    stop_grace_period: {seconds}s
{safe}"""

_STAND_IN = """
  # Stands in for your service. It is in the gateway's network, so that routes find it at 127.0.0.1:1980.
  upstream:
    image: traefik/whoami:v1.10
    command: ["--port", "1980"]
    network_mode: service:gateway
"""

_VOLUMES = """
volumes:
  socket:
"""


def compose(name: str, uds: str | None, *, upstream: bool = False) -> str:
    """Return a ``compose.yaml``: with the runner as a service, or without a socket path as a part of APISIX's image.

    Args:
        name: Of the image. Its Dockerfile, ``config.yaml`` and ``apisix.yaml`` are beside the file.
        uds: Path of the runner's socket; None: APISIX starts the runner.
        upstream: True: a service stands in for an upstream.
    """
    stand_in = _STAND_IN if upstream else ""
    if uds is None:
        return _COMPOSE_ONE.format(name=flow(name), safe=_SAFE) + stand_in
    text = _COMPOSE_TWO.format(
        name=flow(name), image=APISIX_IMAGE, folder=socket_folder(uds), seconds=GRACE_SECONDS + 10, safe=_SAFE
    )
    return text + stand_in + _VOLUMES
