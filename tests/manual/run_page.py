"""Runs the blocks of one page of the manual, in a folder: ``python -m tests.manual.run_page PAGE FOLDER [long]``.

Each page has a process of its own. Its blocks run in the order of the page, as a reader types them:

- A block that is a file is written. A file of tests is run, another module is imported, a route file is checked with
  the page's ``gate.py``.
- Other Python blocks share one namespace.
- Commands run in the folder, and in the one that ``cd`` leads to. What the page shows of their output has to come;
  ``…`` stands for anything, and milliseconds are any. ``dev`` and ``run`` go on beside the page until its end, or until
  the next of their kind. A ``curl`` is repeated while they load what has changed.
- Ports are those of this run, in the page's commands and files, and in the files that ``asgi-bridge new`` makes.
"""

import ast
import asyncio
import contextlib
import importlib
import inspect
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import yaml

from asgi_bridge import Bridge, BridgeError
from asgi_bridge.check import check_routes
from asgi_bridge.gateway import read_routes
from asgi_bridge.loading import load_bridge
from tests.doubles.waiting import until

from ..doubles.untraced import untraced
from .blocks import ROOT, Block, blocks_of

SECONDS = 60.0
"""Seconds that a command may take on a busy machine; one that installs packages may take ten times that."""
PORTS = ("9080", "1980", "9092", "9081")
"""Ports that the manual names: of the gateway, the upstream, the admin address and a second gateway."""
SERVERS = re.compile(r"^(?:exec )?asgi-bridge (dev|run)\b")
BEFORE = """
from typing import Annotated
from asgi_bridge import Bridge, upstream
from asgi_bridge_apps.limit_req import limit_req
from pydantic import BaseModel
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
bridge = Bridge()
"""
"""What the short examples of some pages leave out."""
SHORT = {"architecture.md", "mapping.md", "operation.md", "phases.md"}
"""These pages."""
LISTENS = {"dev": "gateway listens on", "run": "Runner listens on"}
"""What each prints when it listens."""


class Wrong(Exception):
    """A block does not do what the page says."""


def free_ports(number: int) -> list[int]:
    """Return ports that nobody listens on. The system gives none of this range to a connection in the meantime."""
    found: list[int] = []
    for port in random.sample(range(10_000, 32_000), 100):
        with socket.socket() as taken, contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", port))
            found.append(port)
    return found[:number]


class Page:
    """One page, and what its blocks have made so far.

    Args:
        path: The page.
        folder: An empty folder.
        long: Run the blocks that install packages too, with the commands that they install.
    """

    def __init__(self, path: Path, folder: Path, long: bool) -> None:
        self.path = path
        self.folder = folder
        self.long = long
        self.names: dict[str, Any] = {"__name__": "page", "ROOT": ROOT}
        if path.parent == ROOT / "docs" and path.name in SHORT:
            exec(BEFORE, self.names)
        self.where = folder
        self.servers: dict[str, subprocess.Popen[str]] = {}
        found = free_ports(len(PORTS))
        self.ports = dict(zip(PORTS, map(str, found), strict=True))
        bin_ = str(Path(sys.executable).parent)
        self.environment = {
            **untraced(),
            "PATH": f"{folder / '.venv' / 'bin' if long else bin_}:{os.environ['PATH']}",
            "HOME": str(folder),
            "ASGI_BRIDGE_DEV_PORT": self.ports["9080"],
            "ASGI_BRIDGE_DEV_UPSTREAM_PORT": self.ports["1980"],
            "ASGI_BRIDGE_DEV_INSPECTOR_PORT": self.ports["9081"],
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
        }

    def run(self) -> None:
        try:
            for block in blocks_of(self.path):
                if block.reason is not None or (block.comment == "long" and not self.long):
                    continue
                try:
                    began = time.monotonic()
                    self._run(block)
                    if self.long:
                        print(f"{os.path.relpath(self.path, ROOT)}:{block.line}: {time.monotonic() - began:.1f} s")
                except Exception as exc:
                    raise Wrong(f"{os.path.relpath(self.path, ROOT)}:{block.line}: {exc}") from exc
        finally:
            for kind in [*self.servers]:
                self._stop(kind)

    def _run(self, block: Block) -> None:
        if block.title is not None:
            self._write(block.title, block.text)
        match block.language:
            case "python":
                self._python(block)
            case "hidden":
                exec(compile(block.text, f"{self.path}:{block.line}", "exec"), self.names)
            case "yaml":
                self._routes(yaml.safe_load(self._here(block.text)))
            case "json":
                self._routes(json.loads(block.text))
            case "toml":
                self._toml(block)
            case "console":
                self._console(block.text)
            case "" | "text" | "dockerfile" | "ini":
                pass
            case language:
                raise Wrong(f"nothing runs a block of {language}: say why it is not run")

    def _here(self, text: str) -> str:
        """Return a text with this run's ports, and its folder for what the page puts into fixed places."""
        for port, ours in self.ports.items():
            text = re.sub(rf"\b{port}\b", ours, text)
        text = re.sub(r"(?<=[ =])/(tmp|run)/", rf"{self.folder}/\1/", text)
        return text if self.long else text.replace("path/to/asgi_bridge", str(ROOT))

    def _there(self, text: str) -> str:
        """Return an output with the ports and paths of the page."""
        for port, ours in self.ports.items():
            text = re.sub(rf"\b{ours}\b", port, text)
        for name in ("tmp", "run"):
            text = text.replace(f"{self.folder}/{name}/", f"/{name}/")
        return text.replace(f"{self.folder}/", "")

    def _write(self, title: str, text: str) -> None:
        path = self.folder / title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._here(text))

    # -- Python

    def _python(self, block: Block) -> None:
        if block.title is None:
            code = compile(block.text, f"{self.path}:{block.line}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, self.names)
            if inspect.iscoroutine(result):
                asyncio.run(result)
            return
        module = block.title.removesuffix(".py").replace("/", ".")
        importlib.invalidate_caches()
        for name in [*sys.modules]:
            if name == module or name.startswith(f"{module}."):
                del sys.modules[name]
        loaded = importlib.import_module(module)
        self.names.update({name: value for name, value in vars(loaded).items() if not name.startswith("__")})
        if Path(block.title).name.startswith("test_"):
            self._tests(block.title, vars(loaded))

    def _tests(self, title: str, names: dict[str, Any]) -> None:
        tests = [each for name, each in names.items() if name.startswith("test_")]
        if not tests:
            raise Wrong(f"{title} has no tests")
        if any(inspect.signature(test).parameters for test in tests):
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", title]
            done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, env=self.environment)
            if done.returncode:
                raise Wrong(done.stdout + done.stderr)
            return
        for test in tests:
            test()

    # -- routes and tables

    def _routes(self, content: Any) -> None:
        """Check what a block holds with the plugins of the page, if it has routes."""
        if not isinstance(content, dict):
            return
        if {"uri", "plugins"} <= {*content} and "routes" not in content:
            content = {"routes": [{"id": "1", **content}]}
        elif {*content} == {"plugins"}:
            content = {"routes": [{"id": "1", "uri": "/*", **content}]}
        elif {*content} & {"ext-plugin-pre-req", "ext-plugin-post-req", "ext-plugin-post-resp"}:
            content = {"routes": [{"id": "1", "uri": "/*", "plugins": content}]}
        if "routes" not in content:
            return
        for route in content["routes"]:
            if not {"upstream", "upstream_id", "service_id"} & {*route}:
                route["upstream"] = {"type": "roundrobin", "nodes": {"upstream.test:80": 1}}
        routes = read_routes(content, strict=True)
        bridge = self.names.get("bridge")
        if not isinstance(bridge, Bridge):
            raise Wrong("the page shows routes, and has no bridge to check them with")
        findings = [str(each) for each in check_routes(routes, bridge.plugins)]
        if findings:
            raise Wrong("\n".join(findings))

    def _toml(self, block: Block) -> None:
        content = tomllib.loads(block.text)
        if block.title == "pyproject.toml" and "asgi_bridge" in content.get("tool", {}):
            self.names["bridge"] = load_bridge(None, start=self.folder)

    # -- commands

    def _console(self, text: str) -> None:
        for command, expected in _commands(text):
            here = self._here(command)
            server = SERVERS.match(command)
            if server is not None:
                self._serve(server[1], here, expected)
            elif re.fullmatch(r"cd \S+", command):
                self.where = (self.where / here.removeprefix("cd ")).resolve(strict=True)
            else:
                self._command(command, here, expected)
            if command.startswith("asgi-bridge new "):
                for path in self.where.joinpath(command.split()[2]).rglob("*.*"):
                    path.write_text(self._here(path.read_text()))

    def _command(self, command: str, here: str, expected: list[str]) -> None:
        """Run a command, and compare its output with the page's."""
        until_time = time.monotonic() + (SECONDS if command.startswith("curl") and self.servers else 0)
        while True:
            done = subprocess.run(
                ["bash", "-c", f"set -o pipefail; {here}"], cwd=self.where, env=self.environment,
                timeout=SECONDS * (10 if self.long else 1),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            try:
                _compare(command, expected, self._there(done.stdout))
                if done.returncode and not expected:
                    raise Wrong(f"$ {command}\n{done.stdout}\nended with {done.returncode}")
            except Wrong:
                if time.monotonic() >= until_time:
                    raise
                time.sleep(0.05)
            else:
                return

    def _serve(self, kind: str, command: str, expected: list[str]) -> None:
        self._stop(kind)
        log = self.folder / f".{kind}.log"
        with log.open("w") as output:
            process = self.servers[kind] = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=self.where, env=self.environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        until(lambda: LISTENS[kind] in log.read_text() or process.poll() is not None)
        text = self._there(log.read_text())
        if process.poll() is not None:
            raise Wrong(f"$ {command}\nended:\n{text}")
        _compare(command, expected, text)

    def _stop(self, kind: str) -> None:
        process = self.servers.pop(kind, None)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _commands(text: str) -> list[tuple[str, list[str]]]:
    """Return the commands of a block of a terminal, each with the lines of output that the page shows."""
    found: list[tuple[str, list[str]]] = []
    continued = False
    quoted = False
    for line in text.rstrip("\n").split("\n"):
        if continued or quoted:
            command, expected = found.pop()
            found.append((f"{command}\n{line}", expected))
        elif line.startswith("$ "):
            found.append((line[2:], []))
        elif not found:
            raise Wrong(f"no command before {line!r}: a command begins with $")
        else:
            found[-1][1].append(line)
            continue
        continued = line.endswith("\\")
        quoted = found[-1][0].count("'") % 2 == 1
    return found


def _pattern(line: str) -> str:
    """Return the pattern of a line. Milliseconds are any."""
    return ".*?".join(re.sub(r"[\d\\.]+(?=\\ ms\b)", r"[\\d.]+", re.escape(part)) for part in line.split("…"))


def _compare(command: str, expected: list[str], output: str) -> None:
    """Raise Wrong unless the output has the expected lines. `…` stands for anything, alone in a line for any lines."""
    if not expected:
        return
    pattern = "".join(r"(?:.*\n)*?" if line.strip() == "…" else _pattern(line.rstrip()) + r" *\n" for line in expected)
    text = "\n".join(line.rstrip() for line in output.replace("\r\n", "\n").split("\n")).rstrip("\n") + "\n"
    if not re.search(rf"(?:^|\n){pattern}", text):
        raise Wrong(f"$ {command}\nthe page shows\n" + "\n".join(expected) + f"\nand the output is\n{output}")


def main() -> None:
    page, folder, *more = sys.argv[1:]
    os.chdir(folder)
    Path("tmp").mkdir()
    sys.path.insert(0, folder)
    with contextlib.suppress(ValueError):
        sys.path.remove("")
    try:
        Page(ROOT / page, Path(folder), more == ["long"]).run()
    except Wrong as exc:
        sys.exit(str(exc) if isinstance(exc.__cause__, Wrong | BridgeError | None) else _with_trace(exc))


def _with_trace(exc: Wrong) -> str:
    import traceback

    return str(exc) + "\n" + "".join(traceback.format_exception(exc.__cause__))


if __name__ == "__main__":
    main()
