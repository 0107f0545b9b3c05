"""APISIX's ``config.yaml``: what in it keeps external plugins from working."""

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..apisix_constants import LISTS, POST_REQ, POST_RESP, PRE_REQ
from ..errors import ConfigurationError
from ..gateway.routes.environment import replace_in_values
from ..gateway.routes.places import Part, Place, named
from ..gateway.routes.text import read_text
from ..spelling import did_you_mean
from .findings import Finding, error, good, warning

__all__ = ["ApisixConfig"]

SECTION = "ext-plugin"
"""Name of the section about external plugins, and of the shared memory of their tokens."""
_OF_APISIX = ("APISIX_LISTEN_ADDRESS", "APISIX_CONF_EXPIRE_TIME")
"""Variables that APISIX sets for the runner that it starts."""
_SOCKET = re.compile(r"apisix-([0-9]{1,9})\.sock")
"""Name of the socket that APISIX chooses. The number is the process id of its master."""
_IN_SHELL = "write a list of words, as cmd: [/opt/gate/.venv/bin/asgi-bridge, run, gate:bridge]"


class ApisixConfig:
    """A ``config.yaml``.

    Args:
        file: Its path.

    Attributes:
        socket: Path of the socket on which APISIX expects the runner; None: it is not known.
        user: Name of the user that nginx's workers run as; None: the file names none.
        asks_origin: APISIX starts the runner with ``--forwarded-headers ask``.

    Raises:
        ConfigurationError: The file cannot be read, or is no YAML.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        try:
            text = Path(file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
            raise ConfigurationError(f"{file} cannot be read: {reason}") from None
        # without the mark that would make it a route file, whose environment variables are replaced in its text
        documents = read_text(re.sub(r"#END\s*\Z", "", text), file).documents
        self._top = Part(documents[0] if documents else {}, Place(file))
        self.socket: str | None = None
        self.user: str | None = None
        self.asks_origin = False

    def check(self, socket: str | None, variables: Sequence[str]) -> Iterator[Finding]:
        """Find what is wrong, and set the attributes.

        Args:
            socket: Path of the socket that the operator names; None: none.
            variables: Names of the environment variables that the plugins need.
        """
        if not isinstance(self._top.value, Mapping):
            yield error(self._file, "it is no mapping, so APISIX does not start", "write sections, as ext-plugin:")
            return
        yield from self._runner(socket, variables)
        yield from self._plugins()
        user = self._section("nginx_config").get("user")
        if user:
            self.user = str(user)

    # ext-plugin

    def _runner(self, socket: str | None, variables: Sequence[str]) -> Iterator[Finding]:
        section = self._section(SECTION)
        if SECTION not in self._top:
            similar = [name for name in self._top.value if isinstance(name, str) and _similar(name, SECTION)]
            where = self._top.at(similar[0]).place.where if similar else self._file
            named_so = f", but {similar[0]}" if similar else ""
            yield error(where, f"it has no section {SECTION}{named_so}: APISIX looks for no runner", _SECTION_TEXT)
            return
        place = self._top.at(SECTION).place
        if not isinstance(section.value, Mapping) or not section.value:
            yield error(place.where, f"{SECTION} is empty: APISIX looks for no runner", _SECTION_TEXT)
            return
        for name in section.value:
            if name not in ("cmd", "path_for_test"):
                guess = did_you_mean(str(name), ("cmd", "path_for_test"))
                what = f"{SECTION}.{name}: APISIX does not know this{guess}"
                yield warning(section.at(name).place.where, what, "take it out, or write cmd or path_for_test")
        path, cmd = section.get("path_for_test"), section.get("cmd")
        if path is None and cmd is None:
            what = f"{SECTION} has neither cmd nor path_for_test: APISIX starts no runner, and every call gets 503"
            yield error(place.where, what, _SECTION_TEXT)
            return
        if path is not None:
            yield from self._path(section.at("path_for_test"), socket)
        if cmd is not None:
            yield from self._command(section.at("cmd"), has_path=path is not None)
            if path is None:
                yield from self._chosen_socket(socket, section.at("cmd").place.where)
        yield from self._environment(variables, starts=cmd is not None)

    def _path(self, part: Part, socket: str | None) -> Iterator[Finding]:
        path = self._resolved(part)
        where = part.place.where
        if isinstance(path, Finding):
            yield path
        elif not isinstance(path, str) or not path:
            yield error(where, f"path_for_test has to be a path, not {named(path)}", "write path_for_test: /run/r.sock")
        elif path.startswith("unix:"):
            what = "path_for_test begins with unix:, which APISIX adds itself, so no connection succeeds"
            yield error(where, what, f"write path_for_test: {path.removeprefix('unix:')}")
        elif not path.startswith("/"):
            what = f"path_for_test is {path}, which is relative to the folder that APISIX was started in"
            yield error(where, what, "write an absolute path")
        else:
            self.socket = path
            if socket is not None and os.path.realpath(socket) != os.path.realpath(path):
                what = f"APISIX expects the runner at {path}, and --uds names {socket}"
                yield error(where, what, f"start the runner with --uds {path}, or write path_for_test: {socket}")
            else:
                yield good(where, f"APISIX expects the runner at {path} (path_for_test)")

    def _command(self, part: Part, *, has_path: bool) -> Iterator[Finding]:
        cmd = self._resolved(part)
        where = part.place.where
        if isinstance(cmd, Finding):
            yield cmd
            return
        if isinstance(cmd, str) and cmd.strip():
            what = "cmd is one text, so APISIX starts a shell, and it is the shell that gets SIGTERM at a reload"
            yield warning(where, what, _IN_SHELL)
            words = cmd.split()
        elif isinstance(cmd, list) and cmd and all(isinstance(word, str) for word in cmd):
            words = cmd
            reason = _missing(words[0], self._home)
            if reason is not None:
                yield error(
                    where,
                    f"cmd: {reason}, so APISIX cannot start the runner",
                    "write the path of the asgi-bridge of your environment",
                )
            else:
                yield good(where, f"APISIX starts the runner: {' '.join(words)}")
        else:
            yield error(where, f"cmd has to be a list of texts, not {named(cmd)}", _IN_SHELL)
            return
        self.asks_origin = _value_of("--forwarded-headers", words) == "ask"
        uds = _value_of("--uds", words)
        if uds is not None and not has_path:
            what = f"cmd has --uds {uds}, but APISIX connects to a socket of its own choice"
            yield error(where, what, "take --uds out: the runner learns the socket from APISIX_LISTEN_ADDRESS")

    def _chosen_socket(self, socket: str | None, where: str) -> Iterator[Finding]:
        """Find the socket of an APISIX that runs: ``conf/apisix-PID.sock``."""
        if socket is not None:
            return
        folder = self._home / "conf"
        alive = []
        for path in sorted(folder.glob("apisix-*.sock")):
            found = _SOCKET.fullmatch(path.name)
            if found is not None and os.path.exists(f"/proc/{found[1]}"):
                alive.append(str(path))
        if len(alive) == 1:
            self.socket = alive[0]
        elif alive:
            what = f"several APISIX run here, with the sockets {', '.join(alive)}"
            yield warning(where, what, "name the one that you mean with --uds")
        else:
            what = (
                f"{folder} has no apisix-PID.sock of a process that runs: APISIX does not run, or its runner does not"
            )
            yield error(where, what, "start APISIX; its error log says why it could not start the runner")

    def _environment(self, variables: Sequence[str], *, starts: bool) -> Iterator[Finding]:
        nginx = self._section("nginx_config")
        if "envs" in self._top:
            what = "envs stands at the top of the file, where APISIX does not look for it"
            yield warning(self._top.at("envs").place.where, what, "put it under nginx_config")
        envs = nginx.at("envs") if "envs" in nginx else Part(None, nginx.place)
        if envs.value is not None and not isinstance(envs.value, list):
            what = f"nginx_config.envs has to be a list, not {named(envs.value)}: APISIX does not start"
            yield error(envs.place.where, what, "write envs: [DATABASE_URL]")
            return
        passed = set()
        for entry in envs.entries():
            name = str(entry.value).partition("=")[0]
            passed.add(name)
            if name in _OF_APISIX:
                fixed = ", always to 3600" if name == _OF_APISIX[1] else ""
                what = f"nginx_config.envs names {name}, but APISIX sets it for the runner itself{fixed}"
                yield warning(entry.place.where, what, "take it out: it has no effect")
        for name in variables:
            if starts and name not in passed:
                what = f"nginx_config.envs does not name {name}, so the runner that APISIX starts does not get it"
                yield error(
                    envs.place.where, what, f"add {name} to nginx_config.envs, or start the runner with --env-file"
                )

    # plugins

    def _plugins(self) -> Iterator[Finding]:
        if "plugins" not in self._top:
            yield good(self._file, "it has no list plugins, so APISIX enables all external plugins")
            return
        part = self._top.at("plugins")
        where = part.place.where
        if part.value is not None and not isinstance(part.value, list):
            yield error(where, f"plugins has to be a list, not {named(part.value)}", "write a list of names")
            return
        names = {}
        for entry in part.entries():
            names[str(entry.value)] = entry.place.where
        for name, line in names.items():
            if name not in LISTS and _similar(name, *LISTS):
                yield error(line, f"APISIX has no plugin {name}", did_you_mean(name, LISTS).removeprefix("; "))
        lacking = [name for name in LISTS if name not in names]
        if len(lacking) == len(LISTS):
            what = f"the list plugins has none of the ext-plugins: {_DISABLED}"
            yield error(where, what, f"add {', '.join(LISTS)}")
        elif lacking:
            what = f"the list plugins lacks {' and '.join(lacking)}: {_DISABLED}"
            yield warning(where, what, f"add {' and '.join(lacking)}, unless no route uses it")
        else:
            yield good(where, "the list plugins has all ext-plugins")
        own = self._section("nginx_config", "http", "custom_lua_shared_dict")
        if POST_RESP in names and not {PRE_REQ, POST_REQ} & names.keys() and SECTION not in own:
            what = (
                f"the list plugins has {POST_RESP} alone: APISIX then makes no shared memory for tokens, and answers "
                "503 to every call"
            )
            remedy = f"add {PRE_REQ} to the list, or nginx_config.http.custom_lua_shared_dict: {{{SECTION}: 1m}}"
            yield error(names[POST_RESP], what, remedy)

    # parts of the file

    @property
    def _home(self) -> Path:
        """The folder of APISIX, above that of the file."""
        return Path(self._file).resolve().parent.parent

    def _section(self, *names: str) -> Part:
        """Return the mapping under some keys, one in the other; an empty one where there is none."""
        part = self._top
        for name in names:
            part = part.at(name) if name in part else Part({}, part.place)
        return part if isinstance(part.value, Mapping) else Part({}, part.place)

    def _resolved(self, part: Part) -> Any:
        """Return a value with its environment variables replaced, or a finding that one is not set here."""
        try:
            return replace_in_values(part.value, self._file)
        except ConfigurationError:
            what = f"{part.place.path} has an environment variable that is not set here: {part.value}"
            return warning(part.place.where, what, "run the doctor with APISIX's environment to see more")


_DISABLED = "requests of routes from etcd pass without it, and routes from a file are dropped"
_SECTION_TEXT = "write ext-plugin: {cmd: [asgi-bridge, run, gate:bridge]}, or path_for_test with the runner's socket"


def _similar(name: str, *known: str) -> bool:
    return did_you_mean(name, known, 0.8) != ""


def _value_of(option: str, words: Sequence[str]) -> str | None:
    """Return the value that a command line gives to an option; None: it does not have it."""
    for number, word in enumerate(words):
        if word == option and number + 1 < len(words):
            return words[number + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def _missing(program: str, home: Path) -> str | None:
    """Return why a program cannot be started; None: it can."""
    if "/" not in program:
        return None if shutil.which(program) else f"there is no program {program} in PATH"
    path = home / program
    if not path.exists():
        return f"there is no {program}"
    return None if path.is_file() and os.access(path, os.X_OK) else f"{program} is no program that can be run"
