"""A runner with ``--admin``, the plugins that it has, and what it tells over HTTP."""

import json
import re
import urllib.error
import urllib.request
from typing import Any

from ..doubles.runner_process import RunnerProcess, runner_process

__all__ = ["PLUGINS", "Admin", "admin_of", "runner_process"]

PLUGINS = """
import asyncio
import logging

from pydantic import BaseModel, SecretStr

from asgi_bridge import Bridge, apisix, upstream


async def respond(send, status):
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def passing(scope, receive, send):
    await upstream(scope, receive, send)


async def rewriting(scope, receive, send):
    scope["headers"].append((b"x-a", b"b"))
    await upstream(scope, receive, send)


async def stopping(scope, receive, send):
    await respond(send, 403)


async def asking(scope, receive, send):
    await apisix(scope).var("request_id")
    logging.getLogger("shop").info("asked")
    await respond(send, 200)


async def failing(scope, receive, send):
    raise RuntimeError(f"no database with {apisix(scope).conf}")


async def slow(scope, receive, send):
    assert scope["type"] == "http"
    await asyncio.sleep(60)


class Made(BaseModel):
    pin: SecretStr = SecretStr("")
    color: str = "red"


bridge = Bridge()
for app in (passing, rewriting, stopping, asking, failing):
    bridge.mount(app.__name__, app)
bridge.mount("optional", failing, on_error="open")
bridge.mount("slow", slow, timeout=0.05)
bridge.mount("waiting", passing, phase="both")
bridge.mount("watching", stopping, shadow=True)


@bridge.plugin("made")
def made(conf: Made):
    if conf.color == "blue":
        raise ValueError(f"{conf.pin.get_secret_value()} is wrong")
    return stopping
"""
"""A module with the plugins."""


class Admin:
    """The admin application of a runner.

    Args:
        url: where it listens.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **headers: str) -> tuple[int, str, str]:
        """Return status, content type and body of an answer."""
        request = urllib.request.Request(self.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers["content-type"], answer.read().decode()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.headers["content-type"], exc.read().decode()

    def json(self, path: str) -> Any:
        status, kind, body = self.get(path)
        assert (status, kind) == (200, "application/json")
        return json.loads(body)


def admin_of(runner: RunnerProcess) -> Admin:
    """Wait until the admin application listens."""
    runner.logged("Admin listens on http")
    (url,) = re.findall(r"Admin listens on (http://[\w.:]+)", runner.log)
    return Admin(url)
