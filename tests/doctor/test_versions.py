"""What the doctor says of versions of APISIX."""

from pathlib import Path

import pytest

from asgi_bridge import ConfigurationError
from asgi_bridge.doctor import Finding
from asgi_bridge.doctor.findings import error, good, warning

from .conftest import CONFIG, Look

NEWER = "install APISIX 3.6 or later"
ASK = (
    "clients may write the x-forwarded-* headers, from which plugins learn scheme and server",
    "start the runner with --forwarded-headers ask",
)
BODY = ("a request body that a plugin changes is not sent upstream", NEWER)
TYPE = ("a content-type that a plugin sets on its response is replaced", "install APISIX 3.2 or later")
RESP = (
    "ext-plugin-post-resp gives no response bodies: plugins of the response phase and of both phases fail",
    f"{NEWER}, or mount plugins with phase='request'",
)
BODIES = ("the runner cannot ask it for request bodies", NEWER)
INFO = ("the runner cannot ask it for variables and bodies, and it names no route: every var and receive fails", NEWER)


@pytest.mark.parametrize(
    ("version", "errors", "warnings"),
    [
        ("2.5", [("it has no external plugins", NEWER)], []),
        ("2.6.0", [INFO, BODIES, RESP], [TYPE, BODY, ASK]),
        ("2.9.0", [BODIES, RESP], [TYPE, BODY, ASK]),
        ("2.15.3", [RESP], [TYPE, BODY, ASK]),
        ("3.0.0", [], [TYPE, BODY, ASK]),
        ("3.2.2", [], [BODY, ASK]),
        ("3.6.0", [], [ASK]),
        ("v3.13.0-debian", [], [ASK]),
    ],
)
def test_what_a_version_lacks(
    look: Look, version: str, errors: list[tuple[str, str]], warnings: list[tuple[str, str]]
) -> None:
    where = f"APISIX {version}"
    assert look(version=version) == [
        *(error(where, *each) for each in errors),
        *(warning(where, *each) for each in warnings),
    ]


@pytest.mark.parametrize("version", ["3.14.0", "3.18.0", "4.0"])
def test_a_version_that_lacks_nothing(look: Look, version: str) -> None:
    assert look(version=version) == [good(f"APISIX {version}", "it has all that the runner uses")]


def test_a_runner_that_asks_needs_no_headers_to_trust(look: Look) -> None:
    for words in ("--forwarded-headers, ask", "--forwarded-headers=ask"):
        found = look(f"ext-plugin: {{cmd: [sh, {words}]}}", version="3.13.0")
        assert good("APISIX 3.13.0", "it has all that the runner uses") in found
    assert warning("APISIX 3.13.0", *ASK) in look("ext-plugin: {cmd: [sh]}", version="3.13.0")


@pytest.mark.parametrize("file", ["apisix/core/version.lua", "deps/share/lua/5.1/apisix/core/version.lua"])
def test_the_version_is_found_beside_the_configuration(look: Look, home: Path, file: str) -> None:
    (home / file).parent.mkdir(parents=True)
    (home / file).write_text('return {\n    VERSION = "3.7.0"\n}\n')
    assert look("ext-plugin: {cmd: [sh]}")[-1] == warning("APISIX 3.7.0", *ASK)
    # what the operator says counts
    assert look("ext-plugin: {cmd: [sh]}", version="3.18.0")[-1].severity == "ok"
    (home / file).write_text("return {}")
    assert [each for each in look("ext-plugin: {cmd: [sh]}") if each.where.startswith("APISIX")] == []


@pytest.mark.parametrize("version", ["", "three", "3", "3.x"])
def test_what_is_no_version(look: Look, version: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        look(version=version)
    assert str(raised.value) == f"{version!r} is no version of APISIX; write it as 3.18.0"


def test_findings_as_text() -> None:
    assert str(Finding("ok", "a", "b")) == "ok       a: b"
    assert str(Finding("warning", f"{CONFIG}:3", "b", "c")) == "warning  conf/config.yaml:3: b\n         → c"


def test_names_that_others_choose_make_no_finding() -> None:
    forged = "x\nok       /run/r.sock: \x1b[2Ja handshake works"
    shown = r"x\nok       /run/r.sock: \x1b[2Ja handshake works"
    assert str(Finding("error", forged, forged, forged)) == f"error    {shown}: {shown}\n         → {shown}"
