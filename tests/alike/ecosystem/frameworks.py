"""Applications of frameworks. Each answers some routes by itself; some leave the rest to the upstream.

The `make_` functions take that upstream: of the plain side, or of the bridge.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import fastapi
import flask
import flask_cors
import litestar
import litestar.background_tasks
import pydantic
import quart
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from slowapi import Limiter
from slowapi.middleware import SlowAPIASGIMiddleware
from slowapi.util import get_remote_address
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from werkzeug.exceptions import HTTPException as WerkzeugException
from werkzeug.wrappers import Response as WerkzeugResponse

import asgi_bridge
import asgi_bridge.wsgi

__all__: list[str] = []

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"]


class Noted:
    """Notes of background tasks, which run after the answer."""

    def __init__(self) -> None:
        self._notes: list[str] = []
        self._more = threading.Condition()

    def __call__(self, note: str) -> None:
        with self._more:
            self._notes.append(note)
            self._more.notify()

    def clear(self) -> None:
        with self._more:
            self._notes.clear()

    def wait(self, count: int) -> list[str]:
        """Wait for `count` notes, and return all."""
        with self._more:
            assert self._more.wait_for(lambda: len(self._notes) >= count, 10), self._notes
            return sorted(self._notes)


noted = Noted()


# slowapi

limiter = Limiter(key_func=get_remote_address, default_limits=["5/hour"], headers_enabled=True)


def make_limited(inner: ASGIApp) -> Starlette:
    """Put slowapi before `inner`. Each path has its own limit."""

    class Forward:
        """Calls `inner`. slowapi looks up the endpoint of a route by module and name."""

        __name__ = "forward"

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await inner(scope, receive, send)

    app = Starlette(
        routes=[Route("/{path:path}", Forward(), methods=METHODS)], middleware=[Middleware(SlowAPIASGIMiddleware)]
    )
    app.state.limiter = limiter
    return app


limited = make_limited(asgi_bridge.upstream)


# Starlette


def make_starlette(inner: ASGIApp) -> Starlette:
    async def item(request: Request) -> Response:
        return JSONResponse({"id": request.path_params["id"], "query": dict(request.query_params)})

    async def form(request: Request) -> Response:
        content = await request.form()
        return JSONResponse({name: str(value) for name, value in content.items()})

    async def teapot(request: Request) -> Response:
        raise HTTPException(418, "a teapot", {"x-kind": "tea"})

    async def task(request: Request) -> Response:
        return PlainTextResponse("later", background=BackgroundTask(noted, "starlette"))

    async def stream(request: Request) -> Response:
        async def parts() -> AsyncIterator[str]:
            for number in range(5):
                yield f"part {number}\n"

        return StreamingResponse(parts(), media_type="text/plain")

    async def state(request: Request) -> Response:
        return JSONResponse({"state": request.state.started, "client": request.client[0] if request.client else None})

    class Endpoint(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            response = PlainTextResponse("got")
            response.set_cookie("seen", "1", httponly=True)
            return response

        async def post(self, request: Request) -> Response:
            return JSONResponse(await request.json(), 201)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        yield {"started": "yes"}

    return Starlette(
        routes=[
            Route("/items/{id:int}", item, name="item"),
            Route("/form", form, methods=["POST"]),
            Route("/teapot", teapot),
            Route("/task", task),
            Route("/parts", stream),
            Route("/state", state),
            Route("/endpoint", Endpoint),
            Mount("/", inner),
        ],
        lifespan=lifespan,
    )


starlette_app = make_starlette(asgi_bridge.upstream)


# FastAPI


class Item(pydantic.BaseModel):
    name: str
    price: Annotated[float, pydantic.Field(gt=0)]
    tags: list[str] = []


def make_fastapi(inner: ASGIApp) -> fastapi.FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[dict[str, Any]]:
        yield {"started": "yes"}

    app = fastapi.FastAPI(title="gate", lifespan=lifespan)

    def user(authorization: Annotated[str | None, fastapi.Header()] = None) -> Iterator[str]:
        if authorization is None:
            raise fastapi.HTTPException(401, "who are you?", {"www-authenticate": "User"})
        yield authorization.removeprefix("User ")

    @app.get("/items/{number}")
    async def item(number: int, q: Annotated[str | None, fastapi.Query(max_length=5)] = None) -> dict[str, Any]:
        return {"number": number, "q": q}

    @app.post("/items", status_code=201)
    def create(item: Item, response: fastapi.Response) -> Item:
        response.headers["location"] = f"/items/{item.name}"
        response.set_cookie("last", item.name)
        return item

    @app.post("/form")
    async def form(name: Annotated[str, fastapi.Form()], age: Annotated[int, fastapi.Form()] = 0) -> dict[str, Any]:
        return {"name": name, "age": age}

    @app.post("/upload")
    async def upload(file: fastapi.UploadFile) -> dict[str, Any]:
        return {"name": file.filename, "size": len(await file.read())}

    @app.get("/me")
    def me(name: Annotated[str, fastapi.Depends(user)]) -> dict[str, str]:
        return {"name": name}

    @app.get("/task")
    async def task(tasks: fastapi.BackgroundTasks) -> str:
        tasks.add_task(noted, "fastapi")
        return "later"

    @app.get("/state")
    async def state(request: fastapi.Request) -> dict[str, str]:
        return {"state": request.state.started}

    @app.get("/broken")
    async def broken() -> None:
        raise KeyError("broken")

    app.mount("/", inner)
    app.add_middleware(CORSMiddleware, allow_origins=["https://a.test"])
    return app


fastapi_app = make_fastapi(asgi_bridge.upstream)


# Litestar


def make_litestar(inner: object) -> litestar.Litestar:
    async def name(authorization: Annotated[str, litestar.params.HeaderParameter(name="authorization")]) -> str:
        return authorization.removeprefix("User ")

    @litestar.get("/items/{number:int}")
    async def item(number: FromPath[int], q: FromQuery[str | None] = None) -> dict[str, Any]:
        return {"number": number, "q": q}

    @litestar.post("/items")
    async def create(data: JSONBody[Item]) -> Item:
        return data

    @litestar.get("/me", dependencies={"name": litestar.di.Provide(name)})
    async def me(name: NamedDependency[str]) -> dict[str, str]:
        return {"name": name}

    @litestar.get("/task")
    async def task() -> litestar.Response[str]:
        return litestar.Response(
            "later", background=litestar.background_tasks.BackgroundTask(note, "litestar"), media_type="text/plain"
        )

    async def note(text: str) -> None:
        noted(text)

    @litestar.get("/state")
    async def state(state: litestar.datastructures.State) -> dict[str, str]:
        return {"state": state.started}

    @litestar.get("/refused")
    async def refused() -> None:
        raise litestar.exceptions.PermissionDeniedException("not you")

    @litestar.get("/parts")
    async def parts() -> litestar.response.Stream:
        async def content() -> AsyncIterator[str]:
            for number in range(5):
                yield f"part {number}\n"

        return litestar.response.Stream(content(), media_type="text/plain")

    @litestar.get("/cookie")
    async def cookie() -> litestar.Response[dict[str, str]]:
        return litestar.Response({"a": "b"}, headers={"x-kind": "cookie"}, cookies={"seen": "1"})

    async def start(app: litestar.Litestar) -> None:
        app.state.started = "yes"

    handlers = [item, create, me, task, state, refused, parts, cookie]
    return litestar.Litestar(handlers, on_startup=[start], openapi_config=None)


litestar_app = make_litestar(None)


# Quart


def make_quart(inner: object) -> quart.Quart:
    app = quart.Quart("gate")
    app.secret_key = "a secret for tests only"

    @app.before_serving
    async def start() -> None:
        app.config["STARTED"] = "yes"

    @app.get("/items/<int:number>")
    async def item(number: int) -> dict[str, Any]:
        return {"number": number, "q": quart.request.args.get("q")}

    @app.post("/items")
    async def create() -> tuple[Any, int]:
        return await quart.request.get_json(), 201

    @app.post("/form")
    async def form() -> dict[str, Any]:
        return dict(await quart.request.form)

    @app.get("/task")
    async def task() -> str:
        app.add_background_task(note)
        return "later"

    async def note() -> None:
        noted("quart")

    @app.get("/state")
    async def state() -> dict[str, str]:
        return {"state": app.config["STARTED"], "client": quart.request.remote_addr or ""}

    @app.get("/session")
    async def session() -> str:
        quart.session["visits"] = quart.session.get("visits", 0) + 1
        return str(quart.session["visits"])

    @app.get("/refused")
    async def refused() -> None:
        quart.abort(403)

    @app.get("/broken")
    async def broken() -> None:
        raise KeyError("broken")

    @app.get("/parts")
    async def parts() -> quart.Response:
        async def content() -> AsyncIterator[bytes]:
            for number in range(5):
                await asyncio.sleep(0)
                yield b"part %d\n" % number

        return quart.Response(content(), content_type="text/plain; charset=utf-8")

    return app


quart_app = make_quart(None)


# Flask


def make_flask(inner: Any) -> flask.Flask:
    app = flask.Flask("gate")
    app.secret_key = "a secret for tests only"

    @app.get("/items/<int:number>")
    def item(number: int) -> dict[str, Any]:
        return {"number": number, "q": flask.request.args.get("q")}

    @app.post("/items")
    def create() -> tuple[Any, int]:
        return flask.request.get_json(), 201

    @app.post("/form")
    def form() -> dict[str, Any]:
        return dict(flask.request.form)

    @app.get("/session")
    def session() -> str:
        flask.session["visits"] = flask.session.get("visits", 0) + 1
        return str(flask.session["visits"])

    @app.get("/refused")
    def refused() -> str:
        flask.abort(403)

    @app.get("/broken")
    def broken() -> str:
        raise KeyError("broken")

    @app.get("/parts")
    def parts() -> flask.Response:
        return flask.Response((f"part {number}\n" for number in range(5)), content_type="text/plain; charset=utf-8")

    @app.errorhandler(WerkzeugException)
    def refusal(exc: WerkzeugException) -> tuple[dict[str, Any], int]:
        return {"error": exc.name}, exc.code or 500

    @app.route("/", defaults={"path": ""}, methods=METHODS, provide_automatic_options=False)
    @app.route("/<path:path>", methods=METHODS, provide_automatic_options=False)
    def rest(path: str) -> WerkzeugResponse:
        return flask.Response.from_app(inner, flask.request.environ)

    return app


flask_app = make_flask(asgi_bridge.wsgi.upstream)


def make_flask_cors(inner: Any) -> flask.Flask:
    app = make_flask(inner)
    flask_cors.CORS(app, origins=["https://a.test"], supports_credentials=True, allow_headers=["x-a"], max_age=60)
    return app


flask_cors_app = make_flask_cors(asgi_bridge.wsgi.upstream)
