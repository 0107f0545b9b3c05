"""``asgi-bridge doctor`` as a command."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asgi_bridge.cli import main
from asgi_bridge.compiled import core_in_use

from ..doubles.runner_process import BIN
from ..doubles.runner_thread import ThreadRunner
from ..server import sample

Doctor = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runner(home: Path) -> Iterator[ThreadRunner]:
    runner = ThreadRunner(str(home / "r.sock"), "asyncio", sample.bridge)
    yield runner
    runner.stop()


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Run the command in this process. Returns its exit code, stdout and stderr."""

    def doctor(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["asgi-bridge", "doctor", *arguments])
        code = 0
        try:
            main()
        except SystemExit as exc:
            code = int(exc.code or 0)
        return code, *capsys.readouterr()

    return doctor


def test_all_is_well(home: Path, runner: ThreadRunner) -> None:
    (home / "conf" / "config.yaml").write_text(f"ext-plugin:\n  path_for_test: {runner.path}\n")
    arguments = [
        "--apisix-config", f"{home}/conf/config.yaml", "--apisix-version", "3.18.0", "--timeout", "60", "--env", "KEY",
        "hello", "sleeping", "--conf", "{}", "--conf", "3600", "--worker-user", "nobody",
    ]  # fmt: skip
    done = subprocess.run([BIN, "doctor", *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == 8 * ["ok"]
    assert done.stdout.splitlines()[-1] == f"ok       asgi_bridge: core: {core_in_use()}"


def test_an_error_is_exit_code_1_and_a_warning_is_not(
    home: Path, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APISIX_LISTEN_ADDRESS", f"unix:{home}/r.sock")
    code, out, err = doctor()
    assert (code, err) == (1, "")
    assert out.splitlines() == [
        f"error    {home}/r.sock: there is nothing: no runner listens",
        f"         → start it with asgi-bridge run --uds {home}/r.sock, or let APISIX start it (ext-plugin.cmd)",
    ]
    monkeypatch.delenv("APISIX_LISTEN_ADDRESS")
    code, out, _ = doctor("--apisix-version", "3.6.0", "--json")
    assert (code, json.loads(out)) == (
        0,
        [
            {
                "severity": "warning",
                "where": "APISIX 3.6.0",
                "what": "clients may write the x-forwarded-* headers, from which plugins learn scheme and server",
                "remedy": "start the runner with --forwarded-headers ask",
            }
        ],
    )


def test_what_cannot_be_looked_at(home: Path, doctor: Doctor) -> None:
    nothing = "asgi-bridge: nothing to look at: give --uds PATH or --apisix-config FILE\n"
    assert doctor() == (2, "", nothing)
    code, _, err = doctor("hello", "--conf", "{}", "--conf", "{}", "--uds", f"{home}/r.sock")
    assert (code, err.splitlines()[-1]) == (
        2,
        "asgi-bridge doctor: --conf is given 2 times, and there are 1 plugins; asgi-bridge doctor --help says more",
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["doctor", "--apisix-config", "CONFIG"], 2), (["call", "a"], 2), (["doctor", "--apisix-version", "3.18.0"], 0)],
)
def test_a_package_that_is_not_installed(home: Path, arguments: list[str], code: int) -> None:
    config = home / "conf" / "config.yaml"
    config.touch()
    words = [each.replace("CONFIG", str(config)) for each in arguments]
    program = f"import sys; sys.modules['h11'] = None; sys.argv[1:] = {words}; from asgi_bridge.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    needs = f'asgi-bridge: {arguments[0]} needs h11: pip install "asgi_bridge[dev]"\n'
    assert (done.returncode, done.stderr) == (code, needs if code else "")
