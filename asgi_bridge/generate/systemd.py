"""A service of systemd: the runner on the machine on which APISIX runs."""

import re

from .runner import GRACE_SECONDS, Deployed, in_lines, socket_folder

__all__ = ["systemd_unit"]

_UNIT = """\
# The runner as a service beside APISIX: /etc/systemd/system/{name}.service
# APISIX's config.yaml names the socket: asgi-bridge generate config --sidecar
[Unit]
Description=Plugins of APISIX ({name})
# APISIX finds the socket when it starts. Requests get 503 as long as the socket is not there.
Before=apisix.service
After=network.target

[Service]
Type=exec
ExecStart={command}
# New code and new plugins without a lost call: the workers are replaced, one after the other.
ExecReload=/bin/kill -HUP $MAINPID
User={name}
{folder}
Restart=always
RestartSec=1
# The runner ends its calls. What is left after that is killed.
KillMode=mixed
TimeoutStopSec={seconds}
LimitNOFILE=65536

# The runner needs its socket, its code, and the network. Loosen a line where a plugin needs more.
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome={protect_home}
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"""

_is_plain = re.compile(r"[A-Za-z0-9_./:=@+,-]+").fullmatch


def _word(text: str) -> str:
    """Return a word of ``ExecStart``: systemd has quotes, and its own meaning of percent and dollar signs."""
    if _is_plain(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def systemd_unit(name: str, runner: Deployed) -> str:
    """Return a unit file.

    Args:
        name: Of the unit, and of its user.
        runner: The runner.
    """
    folder = socket_folder(runner.uds)
    if folder.startswith("/run/"):
        # with "restart" the tokens outlive the process
        kept = f"RuntimeDirectory={folder.removeprefix('/run/')}\nRuntimeDirectoryPreserve=restart"
    else:
        kept = f"ReadWritePaths={folder}"
    return _UNIT.format(
        name=name,
        command=" \\\n    ".join(" ".join(map(_word, line)) for line in in_lines(runner.command)),
        folder=kept,
        seconds=GRACE_SECONDS + 10,
        protect_home="read-only" if runner.home.startswith(("/home/", "/root")) else "yes",
    )
