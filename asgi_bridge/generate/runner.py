"""How the runner is started where it is deployed."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ConfigurationError
from ..loading import Source

__all__ = [
    "APISIX_IMAGE",
    "APISIX_USER",
    "GRACE_SECONDS",
    "Deployed",
    "checked_name",
    "checked_path",
    "in_lines",
    "json_list",
    "socket_folder",
]

APISIX_IMAGE = "apache/apisix:3.18.0-ubuntu"
"""APISIX's own image."""
APISIX_USER = 636
"""Id of the user and of the group of APISIX in its image. A runner beside it has the same, so that nobody else needs
access to the socket."""
GRACE_SECONDS = 20
"""Seconds that running calls get after SIGTERM, where it is not APISIX that ends the runner."""

_is_name = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?").fullmatch
_is_path = re.compile(r"(?:/[A-Za-z0-9_.-]+)+").fullmatch


def checked_name(name: str) -> str:
    """Return the name, which becomes that of an image, a user, or a resource of Kubernetes.

    Raises:
        ConfigurationError: It has other characters than these may have.
    """
    if not _is_name(name):
        raise ConfigurationError(
            f"--name {name}: lower-case letters, digits and hyphens, a letter first and no hyphen last; at most 63"
        )
    return name


def checked_path(option: str, path: str) -> str:
    """Return an absolute path.

    Args:
        option: Option that gives it, for messages.
        path: What was given.

    Raises:
        ConfigurationError: It is not absolute, or has a character that some of the files would have to escape.
    """
    if not _is_path(path):
        raise ConfigurationError(
            f"{option} {path}: an absolute path of letters, digits, dots, hyphens and underscores, such as /opt/gate"
        )
    return path


@dataclass(frozen=True, slots=True)
class Deployed:
    """The runner where it is deployed.

    Attributes:
        source: Its plugins.
        home: Folder with the code, and the virtual environment ``.venv``.
        uds: Path of its socket; None: APISIX starts the runner, and chooses the path.
        private: True: only its own user may connect, because APISIX runs as the same user.
        workers: Number of processes that serve; ``"auto"``: one for each core that the runner may use.
        admin_port: Port of the admin address, which other machines reach; None: there is none.
    """

    source: Source
    home: str
    uds: str | None
    private: bool = False
    workers: str = "auto"
    admin_port: int | None = None

    @property
    def program(self) -> str:
        """Path of ``asgi-bridge``."""
        return f"{self.home}/.venv/bin/asgi-bridge"

    @property
    def command(self) -> list[str]:
        """The words of the command that starts the runner."""
        words = [self.program, "run", *([self.source.target] if self.source.target else [])]
        for name, target in self.source.mounts.items():
            words += ["--mount", f"{name}={target}"]
        for allowed in self.source.allow:
            words += ["--allow", allowed]
        words += ["--app-dir", self.home, "--workers", self.workers]
        if self.uds is not None:
            words += ["--uds", self.uds]
            words += ["--uds-permissions", "600"] if self.private else []
            words += ["--timeout-graceful-shutdown", str(GRACE_SECONDS)]
        if self.admin_port is not None:
            words += ["--admin", f"0.0.0.0:{self.admin_port}", "--admin-public"]
        return words

    @property
    def health(self) -> list[str]:
        """The words of the command that asks the runner whether it works.

        The path is that of APISIX in its image where APISIX starts the runner: APISIX is process 1 of the container,
        and names the socket after that.
        """
        return [self.program, "health", "--uds", self.uds or "/usr/local/apisix/conf/apisix-1.sock"]


def socket_folder(uds: str | None) -> str:
    """Return the folder of the runner's socket. The runner keeps its tokens there too.

    Args:
        uds: Path of the socket.

    Raises:
        ConfigurationError: It would be the root folder.
    """
    folder = (uds or "").rpartition("/")[0]
    if not folder:
        raise ConfigurationError(f"--uds {uds}: the socket needs a folder of its own, as in /run/gate/runner.sock")
    return folder


def in_lines(words: Sequence[str]) -> list[list[str]]:
    """Divide the words of a command into lines: an option stands on one line with its value, if it has one.

    Args:
        words: The command: a program, its arguments, and options.
    """
    lines: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(word)
    return lines


def json_list(words: Sequence[str], between: str) -> str:
    """Return the words of a command as a list in JSON, which YAML reads too. A long one has several lines.

    Args:
        words: See `in_lines`.
        between: What stands between two lines, the line break included.
    """
    whole = json.dumps(words, ensure_ascii=False)
    if len(whole) <= 100:
        return whole
    lines = [", ".join(json.dumps(word, ensure_ascii=False) for word in line) for line in in_lines(words)]
    return f"[{f',{between}'.join(lines)}]"
