"""``asgi-bridge dev`` as a process."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["SECONDS", "Dev", "dev"]

SECONDS = 60.0
"""Timeout of everything in seconds, long enough for a slow machine."""


class Dev:
    """A running ``asgi-bridge dev``."""

    def __init__(self, process: "subprocess.Popen[bytes]", output: Path) -> None:
        self.process = process
        self.folder = output.parent
        self._output = output

    @property
    def text(self) -> str:
        return self._output.read_text()

    def wait_for(self, what: str | Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not (what() if callable(what) else what in self.text):
            assert time.monotonic() < deadline, f"no {what!r} in:\n{self.text}"
            assert self.process.poll() is None, self.text
            time.sleep(0.05)

    @property
    def url(self) -> str:
        found = re.search(r"listens on (http://\S+) ", self.text)
        assert found is not None
        return found[1]

    @property
    def inspector(self) -> str:
        found = re.search(r"Inspector +(http://\S+)", self.text)
        assert found is not None
        return found[1]


def living(group: int) -> list[str]:
    """Return the processes of a process group, without zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = path.read_text().rpartition(")")
            state, _, of_group = rest.split()[:3]
            if int(of_group) == group and state != "Z":
                found.append(name)
    return found


@contextmanager
def dev(tmp_path: Path, *arguments: str) -> Iterator[Dev]:
    output = tmp_path / "output.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "asgi_bridge", "dev",
                "--port", "0", "--upstream-port", "0", "--inspector-port", "0", *arguments,
            ],
            cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    running = Dev(process, output)
    try:
        running.wait_for("Try:")
        yield running
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(SECONDS) == 0, running.text
        assert not list(tmp_path.glob("asgi-bridge-*")), "a socket is left"
        deadline = time.monotonic() + SECONDS
        while left := living(process.pid):
            assert time.monotonic() < deadline, f"processes are left: {left}"
            time.sleep(0.05)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
