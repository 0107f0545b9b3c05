"""The upstream of both sides of the fidelity suite."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

__all__ = ["make_upstream"]

_NOT_ECHOED = ("x-forwarded-", "x-real-ip", "user-agent", "connection", "accept-encoding")
"""Beginnings of the names of headers that a gateway adds, or that belong to its connections."""

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


async def echo(request: Request) -> Response:
    """Answer with the request, as far as both sides can have it alike."""
    return JSONResponse({
        "method": request.method,
        "path": request.scope["path"],
        "raw_path": request.scope["raw_path"].decode("latin-1"),
        "query": request.scope["query_string"].decode("latin-1"),
        "headers": sorted((name, value) for name, value in request.headers.items() if not name.startswith(_NOT_ECHOED)),
        "body": (await request.body()).decode("latin-1"),
    })  # fmt: skip


async def text(request: Request) -> Response:
    size = int(request.query_params.get("size", 5))
    return PlainTextResponse("All work and no play. " * (size // 22) + "." * (size % 22))


async def page(request: Request) -> Response:
    return Response(b"<h1>page</h1>" * 100, media_type="text/html", headers={"vary": "accept", "x-upstream": "1"})


async def data(request: Request) -> Response:
    return JSONResponse([{"number": number, "name": "a name"} for number in range(int(request.query_params["n"]))])


async def stream(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(int(request.query_params["n"])):
            yield b"part %d of a stream\n" % number

    return StreamingResponse(parts(), media_type=request.query_params.get("type", "text/plain"))


async def cookies(request: Request) -> Response:
    response = PlainTextResponse("cookies")
    for name in ("first", "second", "third"):
        response.headers.append("set-cookie", f"{name}=1; Path=/")
        response.headers.append("x-repeated", name)
    return response


async def encoded(request: Request) -> Response:
    return Response(b"\x1b\x03not really brotli" * 50, headers={"content-encoding": "br", "content-type": "text/css"})


async def image(request: Request) -> Response:
    return Response(b"\x89PNG" * 500, media_type="image/png")


async def status(request: Request) -> Response:
    code = request.path_params["code"]
    if code in (204, 304):
        return Response(status_code=code, headers={"etag": '"of-it"', "x-upstream": "1", "cache-control": "no-store"})
    return PlainTextResponse(f"status {code}\n", code, {"x-upstream": "1"})


async def empty(request: Request) -> Response:
    return Response(b"", request.path_params["code"], {"x-upstream": "1"})


async def redirect(request: Request) -> Response:
    return RedirectResponse("/elsewhere?a=b", 302, {"x-upstream": "1"})


async def tagged(request: Request) -> Response:
    """Answer with an entity tag, whatever the request's conditions are."""
    return PlainTextResponse("tagged " * 5, headers={"etag": '"tag"'})


async def untyped(request: Request) -> Response:
    return Response(b"no content-type", headers={"x-upstream": "1"})


async def bare(request: Request) -> Response:
    return Response(b"text without charset", headers={"content-type": "text/plain"})


async def raising(request: Request) -> Response:
    raise RuntimeError("raised on purpose")


def make_upstream(folder: Path) -> Starlette:
    """Return the application.

    Args:
        folder: folder for static files.
    """
    content = {"file.txt": b"0123456789" * 300, "file.json": json.dumps({"a": "b" * 2000}).encode()}
    for name, body in content.items():
        (folder / name).write_bytes(body)
        os.utime(folder / name, (1_600_000_000, 1_600_000_000))
    app = Starlette(routes=[
        Route("/echo", echo, methods=METHODS),
        Route("/echo/{rest:path}", echo, methods=METHODS),
        Route("/text", text),
        Route("/page", page),
        Route("/data", data),
        Route("/stream", stream, methods=METHODS),
        Route("/cookies", cookies, methods=METHODS),
        Route("/encoded", encoded),
        Route("/image", image),
        Route("/status/{code:int}", status, methods=METHODS),
        Route("/empty/{code:int}", empty, methods=METHODS),
        Route("/redirect", redirect, methods=METHODS),
        Route("/tagged", tagged),
        Route("/untyped", untyped),
        Route("/bare", bare),
        Route("/raising", raising),
        Mount("/files", StaticFiles(directory=folder)),
    ])  # fmt: skip
    return app
