"""A runner process with WSGI code in its threads."""

import asyncio
from pathlib import Path

from asgi_bridge.gateway import GatewayApp
from tests.doubles.clients import client_of, routes_of
from tests.doubles.runner_process import runner_process

SOURCE = """
import sys, time
from asgi_bridge import Bridge
from asgi_bridge.wsgi import WSGIApp

def app(environ, start_response):
    if environ["PATH_INFO"] == "/sleep":
        print("asleep", file=sys.stderr, flush=True)
        time.sleep(600)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"awake"]

bridge = Bridge()
bridge.mount("app", WSGIApp(app))
"""


def test_the_process_ends_although_a_thread_of_it_sleeps(tmp_path: Path) -> None:
    routes = routes_of({"uri": "/*", "plugins": {"ext-plugin-pre-req": {"conf": [{"name": "app", "value": ""}]}}})

    async def main() -> None:
        with runner_process(tmp_path, SOURCE) as runner:
            async with client_of(GatewayApp(routes, runner.path)) as client:
                assert (await client.get("/x")).text == "awake"
                sleeping = asyncio.ensure_future(client.get("/sleep"))
                await asyncio.to_thread(runner.line_with, "asleep")
                await asyncio.to_thread(runner.stop)
                assert (await sleeping).status_code == 503

    asyncio.run(main())
