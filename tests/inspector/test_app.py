"""The inspector's HTTP application: who may ask, what is kept, what is sent again."""

import asyncio
import json
from typing import Any

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from asgi_bridge.dev_runner.body import BODY_LIMIT, Body
from asgi_bridge.gateway import GatewayApp, echo, parse_routes
from asgi_bridge.inspector import Capture, Records, Stage, inspector_app
from asgi_bridge.inspector.copying import Project
from asgi_bridge.inspector.record import CallRecord, Exchanged, Record
from asgi_bridge.inspector.store import KEPT, KEPT_BYTES

ROUTES = "routes: [{id: all, uri: '/*', upstream: {type: roundrobin, nodes: {'u:80': 1}}}]\n#END\n"


JSON = {"content-type": "application/json"}


class Inspected:
    """A gateway without a runner, and its inspector."""

    def __init__(self) -> None:
        self.records = Records()
        self.gateway = GatewayApp(parse_routes(ROUTES), "/nowhere.sock", upstream=echo)
        capture = Capture(self.gateway, self.records)
        stage = Stage(
            self.records,
            capture,
            ("127.0.0.1", 9080),
            "http://127.0.0.1:9080",
            lambda: self.gateway.routes,
            Project,
            True,
        )
        self.client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=capture), base_url="http://127.0.0.1:9080")
        self.page = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=inspector_app(stage)), base_url="http://127.0.0.1:9081"
        )

    async def post(self, path: str, content: Any, **headers: str) -> httpx2.Response:
        own = {"origin": "http://127.0.0.1:9081", "content-type": "application/json"}
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        return await self.page.post(path, content=content, headers={**own, **headers})


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/state", {}, 200),
        ("GET", "/state", {"host": "localhost:9081"}, 200),
        ("GET", "/state", {"host": "[::1]:9081"}, 200),
        ("GET", "/state", {"sec-fetch-site": "same-origin"}, 200),
        # a name of another site that leads to this machine
        ("GET", "/state", {"host": "evil.test:9081"}, 403),
        ("GET", "/state", {"host": "127.0.0.1.evil.test"}, 403),
        ("GET", "/", {"host": "rebound.test:9081"}, 403),
        ("GET", "/state", {"host": "[::1"}, 403),
        # a page of another site, or of another port of this machine
        ("GET", "/state", {"sec-fetch-site": "cross-site"}, 403),
        ("GET", "/state", {"origin": "http://evil.test"}, 403),
        ("GET", "/events", {"origin": "http://127.0.0.1:3000"}, 403),
        ("GET", "/page/main.js", {"sec-fetch-site": "same-site"}, 403),
        # a link from elsewhere may lead to the page, and to nothing else
        ("GET", "/", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
        ("GET", "/state", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
        ("POST", "/requests/1/send", {"origin": "http://127.0.0.1:9081", "content-type": "application/json"}, 200),
        ("POST", "/requests/1/send", {"content-type": "application/json"}, 403),
        ("POST", "/requests/1/send", {"origin": "null", "content-type": "application/json"}, 403),
        ("POST", "/requests/1/send", {"origin": "http://evil.test", "content-type": "application/json"}, 403),
        ("POST", "/requests/1/send", {"origin": "http://127.0.0.1:9081.evil.test", **JSON}, 403),
        ("POST", "/requests/1/send", {"origin": "http://127.0.0.1:9081", "content-type": "text/plain"}, 403),
        ("POST", "/clear", {"origin": "http://127.0.0.1:9081"}, 403),
        ("POST", "/", {"origin": "http://127.0.0.1:9081", "content-type": "application/json"}, 405),
        ("GET", "/page/..%2fapp.py", {}, 404),
        ("GET", "/page/app.py", {}, 404),
        ("GET", "/requests/7", {}, 404),
    ],
)  # fmt: skip
def test_only_the_page_of_this_machine_may_ask(method: str, path: str, headers: dict[str, str], status: int) -> None:
    async def run() -> None:
        stage = Inspected()
        await stage.client.get("/x")
        response = await stage.page.request(method, path, headers=headers)
        assert response.status_code == status
        assert response.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert response.headers["x-content-type-options"] == "nosniff"
        sent = 1 if status == 200 and method == "POST" else 0
        assert stage.records.total == 1 + sent

    asyncio.run(run())


def test_the_page_loads_nothing_of_others() -> None:
    async def run() -> None:
        stage = Inspected()
        names = [
            "",
            *(f"page/{name}" for name in ("style.css", "main.js", "list.js", "detail.js", "bodies.js", "edit.js")),
        ]
        texts = {name: (await stage.page.get("/" + name)).text for name in [*names, "page/elements.js"]}
        for name, text in texts.items():
            assert "://" not in text.replace("http://www.w3.org", "").replace("xmlns='http:", ""), name
            assert all(
                word not in text for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")
            ), name

    asyncio.run(run())


def test_the_last_requests_are_kept_and_no_more() -> None:
    async def run() -> None:
        stage = Inspected()
        for number in range(KEPT + 7):
            await stage.client.get(f"/{number}")
        state = (await stage.page.get("/state")).json()
        assert state["total"] == KEPT + 7
        assert [each["target"] for each in state["requests"]] == [f"/{number}" for number in range(7, KEPT + 7)]
        assert (
            await stage.page.get("/requests/7")
        ).text == "this request is not kept any more: only the last 500 are\n"
        detail = (await stage.page.get("/requests/8")).json()
        assert (detail["client"]["request"]["target"], detail["outcome"]) == ("/7", "passed")

    asyncio.run(run())


def test_what_is_kept_has_a_maximum_size_whatever_comes() -> None:
    records = Records()
    for number in range(400):
        body = Body(number.to_bytes(2, "big") * BODY_LIMIT)
        record = records.begin(Exchanged("POST", b"/", []), None)
        for part in (body, Body(body.kept[::-1] + b"x"), Body(body.kept[1:])):
            record.keep(part)
        records.changed(record)
    sizes = [record.size for record in records]
    assert sum(sizes) <= KEPT_BYTES < sum(sizes) + max(sizes)


def test_late_news_find_a_request_that_is_kept_however_many_came_after_it() -> None:
    records = Records()

    def called(number: int) -> Record:
        record = records.begin(Exchanged("GET", b"/", []), None)
        record.calls.append(CallRecord(number))
        records.calls(record, record.calls[-1])
        return record

    def tell(number: int) -> None:
        records.tell({"call": number, "at": 1.0, "plugins": ["gate"], "parts": [], "shadows": [], "lines": []})

    kept = called(0)
    records.pause(True)
    passing = [called(number) for number in range(1, 10 * KEPT)]
    for number in range(10 * KEPT):
        tell(number)
    # those that are not kept are told too, to the terminal: the last ones
    assert kept.calls[0].plugins == ["gate"]
    assert [bool(each.calls[0].plugins) for each in passing] == [False] * (6 * KEPT - 1) + [True] * 4 * KEPT

    records.pause(False)
    for number in range(10 * KEPT, 11 * KEPT):
        called(number)
    kept.calls[0].plugins = None
    tell(0)
    assert (kept.dropped, kept.calls[0].plugins) == (True, None)


def test_equal_bodies_are_kept_once_and_long_ones_in_part() -> None:
    long = b"a" * BODY_LIMIT
    one, other = Body(long + b"b"), Body()
    for part in (long[:1000], long[1000:], b"b"):
        other.add(part)
    assert (one == other, one == Body(long + b"c"), one == Body(long)) == (True, False, False)
    assert (one.kept == long, one.size, one.cut) == (True, BODY_LIMIT + 1, True)
    read = Body.of_json(one.as_json())
    assert (read == one, read.size, hash(read) == hash(one)) == (True, one.size, True)
    record = Records().begin(Exchanged("GET", b"/", []), None)
    assert record.keep(one) is record.keep(other)


@pytest.mark.parametrize(
    ("edited", "said"),
    [
        ({"method": "GET /"}, "the method has to be a word such as GET"),
        ({"method": 1}, "the method has to be a word such as GET"),
        ({"target": "http://other/"}, "path and query have to begin with a slash, and have no blanks: write %20"),
        ({"target": "/a\r\nX: y"}, "path and query have to begin with a slash, and have no blanks: write %20"),
        ({"headers": [["x", "a\r\nb: c"]]}, "no header can be 'x': 'a\\r\\nb: c'"),
        ({"headers": [["", "a"]]}, "no header can be '': 'a'"),
        ({"headers": [["x"]]}, "headers have to be pairs of name and value"),
        ({"body": 5}, "the body has to be a text"),
        ({"base64": "*"}, "the body is no base64"),
        ([], "the page sends a JSON object"),
    ],
)
def test_what_cannot_be_sent_again_is_refused(edited: Any, said: str) -> None:
    async def run() -> None:
        stage = Inspected()
        await stage.client.get("/x")
        answer = await stage.post("/requests/1/send", edited)
        assert (answer.status_code, answer.text) == (400, said + "\n")
        assert stage.records.total == 1

    asyncio.run(run())


def test_a_request_is_sent_again_byte_for_byte() -> None:
    async def run() -> None:
        stage = Inspected()
        raw = [
            (b"host", b"h:1"),
            (b"x-raw", b"\xff\xe9"),
            (b"x-two", b"1"),
            (b"x-two", b"2"),
            (b"content-length", b"3"),
        ]
        await stage.client.post("/%ff/a?b=%c3%a9", content=b"\x00\xff\n", headers=raw)
        first = (await stage.page.get("/requests/1")).json()
        again = await stage.post("/requests/1/send", {"headers": first["client"]["request"]["headers"]})
        finished = asyncio.Event()
        stage.records.on_change.append(lambda record: None if record.finished is None else finished.set())
        await asyncio.wait_for(finished.wait(), 60)
        one, two = stage.records.get(1), stage.records.get(again.json()["id"])
        assert one is not None and two is not None
        assert (two.again, two.client.status) == (1, 200)
        assert (one.client.target, one.client.body) == (two.client.target, two.client.body)
        assert sorted(one.client.headers) == sorted(two.client.headers)
        assert one.client.response_body == two.client.response_body

    asyncio.run(run())


def test_changes_are_told_in_pieces_of_bounded_size() -> None:
    async def run() -> None:
        stage = Inspected()
        subscription = stage.records.subscribe()
        assert subscription is not None
        for number in range(KEPT + 50):
            await stage.client.get(f"/{number}")
        changed = await subscription.changes(5)
        assert changed == list(range(51, KEPT + 51))
        assert await subscription.changes(0.01) == []
        stage.records.close()
        await subscription.changes(5)
        assert subscription.over

    asyncio.run(run())


def test_a_client_that_goes_away_is_shown() -> None:
    async def run() -> None:
        stage = Inspected()
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "headers": [(b"host", b"h"), (b"content-length", b"5")],
        }
        await Capture(stage.gateway, stage.records)(scope, receive, send)
        detail = (await stage.page.get("/requests/1")).json()
        assert (detail["outcome"], detail["fault"]) == ("the client went away before it had the whole response", True)

    asyncio.run(run())


def test_a_fault_of_the_gateway_is_shown() -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("no")

    async def run() -> None:
        records = Records()
        scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        with pytest.raises(RuntimeError):
            await Capture(breaks, records)(scope, breaks, breaks)  # type: ignore[arg-type]
        (record,) = records
        assert record.error == "the connection was broken off: RuntimeError: no"

    asyncio.run(run())
