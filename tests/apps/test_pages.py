"""docs/plugins/ has a fresh page for each ready-made plugin, and what the pages show is what happens."""

import base64
import re
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from asgi_bridge_apps import bridge as ready_made
from starlette.testclient import TestClient

from asgi_bridge.loading import load_bridge
from asgi_bridge.testing import Gateway

from .pages import FOLDER, HOME, PAGES, bridge, pages

BRIDGE = bridge()
TEXTS = {path.name: path.read_text("utf-8") for path in FOLDER.glob("*")}


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXTS[f"{name}.md"], re.DOTALL | re.MULTILINE)


def test_every_ready_made_plugin_has_a_page_and_all_are_fresh() -> None:
    assert set(PAGES) == set(ready_made.plugins)
    assert pages() == TEXTS, "stale: .venv/bin/python -m tests.apps.pages"


def curl(client: TestClient, command: str) -> Any:
    """Make the request of a curl command."""
    program, *arguments = shlex.split(command)
    assert program == "curl"
    method, headers, content = "GET", [("user-agent", "curl"), ("accept", "*/*")], None
    while len(arguments) > 1:
        option = arguments.pop(0)
        if option in ("-i", "--compressed"):
            continue
        value = arguments.pop(0)
        if option == "-X":
            method = value
        elif option == "-H":
            name, _, text = value.partition(": ")
            headers.append((name, text))
        elif option == "-d":
            method, content = "POST", value
        else:
            assert option == "-u", option
            headers.append(("authorization", f"Basic {base64.b64encode(value.encode()).decode()}"))
    (url,) = arguments
    assert url.startswith(HOME)
    for name in ("accept", "accept-encoding", "user-agent", "connection"):
        client.headers.pop(name, None)
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    return client.request(method, target, headers=headers, content=content)


def matches(shown: str, found: str) -> bool:
    """Return whether a text is as shown, where … stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, shown.split("…"))), found, re.DOTALL) is not None


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_requests_of_a_page_have_the_answers_that_it_shows(name: str, tmp_path: Path) -> None:
    routes = tmp_path / "apisix.yaml"
    (text,) = blocks(name, "yaml")
    routes.write_text(text)
    made = BRIDGE
    for module in blocks(name, "python"):
        if module.startswith("# gate.py\n"):
            (tmp_path / "gate_of_a_page.py").write_text(module)
            with pytest.MonkeyPatch.context() as patch:
                patch.syspath_prepend(str(tmp_path))
                made = load_bridge("gate_of_a_page")
    start, *tries = blocks(name, "console")

    assert start.startswith("$ asgi-bridge dev ")
    assert tries
    client = ("127.0.0.1", 4711)
    with TestClient(Gateway(made, routes), base_url=HOME, follow_redirects=False, client=client) as http:
        for shown in tries:
            command, status, *lines = shown.splitlines()
            answer = curl(http, command.removeprefix("$ "))
            assert f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}" == status, answer.text
            head, _, body = "\n".join(lines).partition("\n\n") if lines and lines[0] else ("", "", "\n".join(lines[1:]))
            for line in filter(None, head.split("\n")):
                header, _, value = line.partition(": ")
                assert any(matches(value, each) for each in answer.headers.get_list(header)), (line, answer.headers)
            assert matches(body, answer.text.rstrip("\n")) or not body, answer.text
