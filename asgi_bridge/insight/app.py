"""The admin application: what ``--admin`` serves over HTTP."""

import asyncio
import ipaddress
import json
from collections.abc import Awaitable, Callable
from importlib import metadata, resources
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..extras import install
from .insight import Insight, Report, summed
from .tally import BUCKETS, Histogram, action_of

__all__ = ["Reports", "admin_app"]

Reports = Callable[[], Awaitable[list[Report]]]
"""Asks all processes that serve for their reports."""

SHOWN_CONFIGURATIONS = 500
"""Number of configurations that are shown, unless the request gives another ``limit``."""
_HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; connect-src 'self'; img-src data:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'",
}


def admin_app(insight: Insight, reports: Reports, *, any_host: bool = False) -> ASGIApp:
    """Make the admin application of one process.

    Args:
        insight: What this process tells of itself.
        reports: Asks all processes for theirs.
        any_host: True: requests may name any host. False: they name an IP address or ``localhost``. So no page of
            another site, whose name was made to lead to this address, can read anything.
    """

    async def live(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(request: Request) -> Response:
        obstacle = insight.obstacle()
        return PlainTextResponse("ok\n" if obstacle is None else f"{obstacle}\n", 200 if obstacle is None else 503)

    async def metrics(request: Request) -> Response:
        try:
            from .exposition import render
        except ModuleNotFoundError as exc:
            return PlainTextResponse(f"needs {(exc.name or '').partition('.')[0]}: {install('metrics')}\n", 501)
        found = await reports()
        workers = [report.worker for report in found if report.worker]
        content, content_type = render(summed(found), workers, _version(), request.headers.get("accept", ""))
        return Response(content, headers={"content-type": content_type})

    async def plugins(request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(insight.describe_plugins))

    async def configurations(request: Request) -> Response:
        limit = request.query_params.get("limit", str(SHOWN_CONFIGURATIONS))
        if not (limit.isascii() and limit.isdigit()) or len(limit) > 9:
            return PlainTextResponse("limit must be a number\n", 400)
        describe = insight.configurations(int(limit))
        content = await asyncio.to_thread(lambda: json.dumps(describe(), ensure_ascii=False).encode())
        return Response(content, media_type="application/json")

    async def status(request: Request) -> Response:
        return JSONResponse(_status(await reports()))

    async def page(request: Request) -> Response:
        return Response(_page(), media_type="text/html; charset=utf-8")

    paths = {
        "/": page,
        "/livez": live,
        "/readyz": ready,
        "/metrics": metrics,
        "/plugins": plugins,
        "/configurations": configurations,
        "/status": status,
    }
    return _Guarded(Starlette(routes=[Route(path, each, methods=["GET"]) for path, each in paths.items()]), any_host)


class _Guarded:
    """Refuses requests for foreign hosts, and adds _HEADERS to each response."""

    def __init__(self, app: ASGIApp, any_host: bool) -> None:
        self._app = app
        self._any_host = any_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if self._any_host or _is_address(Headers(scope=scope).get("host", "")):
            app = self._app
        else:
            app = PlainTextResponse("the Host header must be an IP address or localhost\n", 421)

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        await app(scope, receive, sending)


def _is_address(host: str) -> bool:
    """Whether a Host header is an IP address or ``localhost``, with or without a port; so is none at all."""
    name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
    if name.lower() in ("", "localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _status(reports: list[Report]) -> dict[str, Any]:
    """Return what the page shows, in figures that it need not work out."""
    tally = summed(reports)
    calls: dict[tuple[str, str], dict[str, int]] = {}
    for (plugin, phase, outcome), number in tally.plugin_calls.items():
        actions = calls.setdefault((plugin, phase), {})
        actions[action_of(outcome)] = actions.get(action_of(outcome), 0) + number
    faults: dict[tuple[str, str], int] = {}
    for (plugin, phase, _), number in tally.faults.items():
        faults[plugin, phase] = faults.get((plugin, phase), 0) + number
    plugins = [
        {
            "plugin": plugin,
            "phase": phase,
            "calls": sum(actions.values()),
            "actions": actions,
            "faults": faults.get((plugin, phase), 0),
            **_durations(tally.plugin_seconds.get((plugin, phase))),
        }
        for (plugin, phase), actions in calls.items()
    ]
    lines = sorted((line for report in reports for line in report.lines), key=lambda line: str(line["time"]))
    return {
        "version": _version(),
        "workers": [report.worker for report in reports if report.worker],
        "calls": tally.calls.total(),
        "plugins": sorted(plugins, key=lambda each: (-each["mean"], each["plugin"], each["phase"])),
        "counts": dict(tally.counts),
        "lines": lines[::-1],
    }


def _durations(histogram: Histogram | None) -> dict[str, float]:
    """Return mean and 99th percentile in seconds. The latter is the upper bound of its bucket, at most the last one."""
    total = 0 if histogram is None else sum(histogram.counts)
    if histogram is None or not total:
        return {"mean": 0.0, "p99": 0.0}
    seen, bound = 0, BUCKETS[-1]
    for each, number in zip(BUCKETS, histogram.counts, strict=False):
        seen += number
        if seen >= 0.99 * total:
            bound = each
            break
    return {"mean": histogram.seconds / total, "p99": bound}


def _version() -> str:
    return metadata.version("asgi_bridge")


def _page() -> bytes:
    return resources.files(__package__).joinpath("page.html").read_bytes()
