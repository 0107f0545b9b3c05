"""Starts what is measured: the runner, the floor, other runners. The load generator leaves their core alone."""

import contextlib
import gzip
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .cases import peers

__all__ = ["BUILD", "FRAMES", "HERE", "calls_file", "command", "compiled", "cores", "environment", "on_core", "server"]

HERE = Path(__file__).resolve().parent
BUILD = HERE / ".build"
FRAMES = HERE / "frames"
START_SECONDS = 60.0


def compiled(name: str) -> Path:
    """Compile the C program `name`, unless its sources are unchanged, and return its path."""
    source, program = HERE / f"{name}.c", BUILD / name
    changed = max(path.stat().st_mtime for path in (source, *HERE.glob("*.h")))
    if not program.exists() or program.stat().st_mtime < changed:
        BUILD.mkdir(exist_ok=True)
        compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
        if compiler is None:
            raise SystemExit("no C compiler for the load generator: apt-get install gcc")
        new = program.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, "-O2", "-o", new, source], check=True)
        new.rename(program)  # another process may be compiling it too
    return program


def calls_file(name: str, folder: Path) -> Path:
    """Return the path of a file of calls. What is compressed is unpacked into `folder`."""
    packed = FRAMES / f"{name}.bin.gz"
    if not packed.exists():
        return FRAMES / f"{name}.bin"
    plain = folder / f"{name}.bin"
    if not plain.exists():
        plain.write_bytes(gzip.decompress(packed.read_bytes()))
    return plain


def cores() -> tuple[int | None, int | None]:
    """Return the core for the servers and the core for the load generator; None twice if there is only one core."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (usable[0], usable[1]) if len(usable) >= 2 else (None, None)


def on_core(core: int | None) -> Callable[[], None] | None:
    """Return a `preexec_fn` that keeps a process on one core; None if `core` is None."""
    return None if core is None else lambda: os.sched_setaffinity(0, {core})


def command(server: str, socket: Path, loop: str) -> list[str]:
    """Return the command that starts a server."""
    runner = [sys.executable, "-m", "benchmarks.runner", str(socket), loop]
    if server == "limit":
        return list(map(str, (compiled("limit"), socket, FRAMES / "pc_resp.bin", FRAMES / "stop_resp.bin")))
    if server in ("go", "java"):
        return peers()[server]
    if server == "recorder":
        return [*runner, "--record", f"{socket}.jsonl"]
    if server == "frameworks":
        return [*runner, "--frameworks"]
    return runner if server in ("runner", "pure") else [sys.executable, "-m", f"benchmarks.{server}", str(socket), loop]


def environment(server: str, socket: Path) -> dict[str, str]:
    """Return the environment of a server. Those of Go and Java learn their socket by it, as APISIX tells them."""
    if server == "pure":
        return {**os.environ, "ASGI_BRIDGE_PURE": "1", "ASGI_BRIDGE_COMPILED": ""}
    if server not in ("go", "java"):
        return dict(os.environ)
    # one thread of Go for one core, as the other servers have
    told = {"APISIX_LISTEN_ADDRESS": f"unix:{socket}", "APISIX_CONF_EXPIRE_TIME": "3600", "GOMAXPROCS": "1"}
    return {**os.environ, **told}


@contextlib.contextmanager
def server(command: Sequence[str], socket: Path, core: int | None, env: dict[str, str] | None = None) -> Iterator[int]:
    """Run a server, and yield its process id once its socket exists."""
    log = Path(f"{socket}.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=HERE.parent, env=env, stdout=output, stderr=output, preexec_fn=on_core(core)
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(command)} did not start:\n{log.read_text('utf-8', 'replace')}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
