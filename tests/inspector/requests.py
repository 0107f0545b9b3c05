"""Twenty requests of all kinds, and what a person sees of each."""

import json
from dataclasses import dataclass, field

__all__ = ["ROUTES", "SENT", "Sent"]


def _route(name: str, pre_req: tuple[str, ...] = (), post_resp: tuple[str, ...] = (), upstream: str = "echo") -> str:
    lists = {"ext-plugin-pre-req": pre_req, "ext-plugin-post-resp": post_resp}
    plugins = {
        each: {"conf": [{"name": plugin, "value": "{}"} for plugin in listed]}
        for each, listed in lists.items()
        if listed
    }
    # JSON is YAML
    return f"  - {json.dumps({'id': name, 'uri': f'/{name}*', 'plugins': plugins, 'upstream_id': upstream})}\n"


ROUTES = (
    'upstreams:\n  - {id: echo, type: roundrobin, nodes: {"127.0.0.1:1980": 1}}\n'
    '  - {id: down, type: roundrobin, nodes: {"127.0.0.1:9": 1}}\n'
    "routes:\n"
    + _route("open")
    + _route("gate", ("gate",))
    + _route("path", ("path",))
    + _route("body", ("body",))
    + _route("mark", ("mark",))
    + _route("around", ("around",), ("around",))
    + _route("shout", (), ("shout",))
    + _route("broken", ("mark", "broken", "gate"))
    + _route("slow", ("slow",))
    + _route("count", ("count",))
    + _route("say", ("say",))
    + _route("two", ("mark", "gate"))
    + _route("both", ("gate", "around"), ("shout", "around"))
    + _route("down", ("mark",), (), "down")
    + _route("unknown", ("nosuch",))
    + _route("beside", ("mark", "judge"))
    + "#END\n"
)
"""The routes of these requests."""


@dataclass(frozen=True)
class Sent:
    """A request, and what a person sees of it.

    Attributes:
        name: Of the kind.
        row: What its row in the list says, but for times.
        there: The nodes of the picture on the way to the upstream, without their times.
        back: Those on the way back.
        steps: For each plugin texts that its differences show.
        tabs: For each tab texts that it shows.
        method, target, headers, body: Of the request.
    """

    name: str
    row: str
    there: tuple[str, ...]
    back: tuple[str, ...]
    steps: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tabs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    method: str = "GET"
    target: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


_KEY = (("X-Key", "right"),)
_BINARY = bytes(range(256))
_PASSED = ("Client got 200", "Upstream 200")

SENT = (
    Sent(
        "no plugin", "200 GET /open/a?b=c open passed", ("Client GET request", "Upstream answered 200"), _PASSED,
        tabs={
            "Plugins": ("Route open lists no plugin of the runner.",),
            "Client": ("GET /open/a?b=c", '"query": "b=c"'),
        },
        target="/open/a?b=c",
    ),
    Sent(
        "no route", "404 GET /nowhere no route", ("Client GET request", "Upstream not reached"),
        ("Client got 404", "Gateway answered"),
        tabs={"Plugins": ("No route fits this request, so no plugin ran.",), "Client": ("404 Route Not Found",)},
        target="/nowhere",
    ),
    Sent(
        "stop", "401 GET /gate gate gate answered 401",
        ("Client GET request", "pre-req gate ↩ answered 401", "Upstream not reached"),
        ("Client got 401", "Gateway gate answered"),
        {"gate": ("It answered 401", "application/problem+json", '"title": "no key"')}, target="/gate",
    ),
    Sent(
        "headers", "200 GET /gate/key gate changed by gate",
        ("Client GET request", "pre-req gate ✎ 2 changes", "Upstream answered 200"), _PASSED,
        {"gate": ("Request changed", "- x-key: right", "+ x-user: jane", "unchanged headers")},
        {"Upstream": ("x-user\tjane",), "Frames": ("HTTPReqCall.Resp", "Rewrite")}, target="/gate/key", headers=_KEY,
    ),
    Sent(
        "path and query", "200 GET /path/x?page=1 path changed by path",
        ("Client GET request", "pre-req path ✎ 2 changes", "Upstream answered 200"), _PASSED,
        {"path": ("- path  /path/x", "+ path  /new/path/x", "- query  page=1", "+ query  page=2")},
        {"Upstream": ("GET /new/path/x?page=2",)}, target="/path/x?page=1",
    ),
    Sent(
        "body", "200 POST /body body changed by body",
        ("Client POST request", "pre-req body ✎ 1 change", "Upstream answered 200"), _PASSED,
        {"body": ("Request body: 33 bytes → 33 bytes", '-   "size": "small",', '+   "size": "large",')},
        {"Asked": ("request body", '"size": "small"')},
        "POST", "/body", (("Content-Type", "application/json"),), b'{"size": "small", "item": "book"}',
    ),
    Sent(
        "header of the response", "200 GET /mark mark changed by mark",
        ("Client GET request", "pre-req mark ✎ 1 change", "Upstream answered 200"), _PASSED,
        {"mark": ("Request unchanged", "Response changed", "+ x-mark: seen")}, {"Client": ("x-mark\tseen",)},
        target="/mark",
    ),
    Sent(
        "both phases", "203 GET /around around changed by around",
        ("Client GET request", "pre-req around ✎ 1 change", "Upstream answered 200"),
        ("Client got 203", "post-resp around ✎ 1 change", "Upstream 200"),
        {"around": ("+ x-around: 1",), "around 2": ("- status  200", "+ status  203")},
        {
            "Asked": ("$request_id", "$request\tGET /around HTTP/1.1"),
            "Upstream": ("fetched by ext-plugin-post-resp",),
        }, target="/around",
    ),
    Sent(
        "response phase", "200 GET /shout shout changed by shout", ("Client GET request", "Upstream answered 200"),
        ("Client got 200", "post-resp shout ✎ 1 change", "Upstream 200"),
        {"shout": ("Response body:", '-   "method": "GET",', '+   "METHOD": "GET",')}, target="/shout",
    ),
    Sent(
        "fault", "503 GET /broken broken broken failed: ZeroDivisionError: division by zero",
        ("Client GET request", "pre-req mark ✓ passed", "pre-req broken ✕ failed", "pre-req gate not reached",
         "Upstream not reached"),
        ("Client got 503", "Gateway broken failed"),
        {"broken": ("ZeroDivisionError: division by zero", "in broken", "share(0)", "return 1 / pieces")},
        {"Output": ("request refused: ZeroDivisionError: division by zero", "Traceback of broken")}, target="/broken",
    ),
    Sent(
        "timeout", "503 GET /slow slow slow no answer in time",
        ("Client GET request", "pre-req slow ✕ timeout", "Upstream not reached"),
        ("Client got 503", "Gateway slow failed"),
        {"slow": ("no answer in time (option timeout: 0.2 s)",)}, {"Output": ("request refused: no answer in time",)},
        target="/slow",
    ),
    Sent(
        "WebSocket", "200 GET /open/socket WebSocket open passed",
        ("Client GET request", "Upstream answered 200"), _PASSED,
        tabs={"Output": ("the stand-in does not proxy WebSockets",), "Client": ("upgrade\twebsocket",)},
        target="/open/socket",
        headers=(("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZQ=="),
                 ("Sec-WebSocket-Version", "13")),
    ),
    Sent(
        "binary body", "200 PUT /count/binary count changed by count",
        ("Client PUT request", "pre-req count ✎ 1 change", "Upstream answered 200"), _PASSED,
        {"count": ("+ x-size: 256",)},
        {"Client": ("256 bytes", "000000  00 01 02 03 04 05 06 07  08 09 0a 0b 0c 0d 0e 0f")}, "PUT", "/count/binary",
        body=_BINARY,
    ),
    Sent(
        "upload of 5 MB", "200 POST /count/upload count changed by count",
        ("Client POST request", "pre-req count ✎ 1 change", "Upstream answered 200"), _PASSED,
        {"count": ("+ x-size: 5000000",)}, {"Client": ("the first 131,072 bytes of 5,000,000 bytes",)}, "POST",
        "/count/upload", body=b"five mega" + b"x" * 4_999_991,
    ),
    Sent(
        "HEAD", "200 HEAD /gate/head gate changed by gate",
        ("Client HEAD request", "pre-req gate ✎ 2 changes", "Upstream answered 200"), _PASSED,
        {"gate": ("+ x-user: jane",)}, {"Client": ("Body: empty",)}, "HEAD", "/gate/head", _KEY,
    ),
    Sent(
        "stop of the second", "401 GET /two two gate answered 401",
        ("Client GET request", "pre-req mark ✎ 1 change", "pre-req gate ↩ answered 401", "Upstream not reached"),
        ("Client got 401", "Gateway gate answered"),
        {"mark": ("+ x-mark: seen",), "gate": ("It answered 401",)}, {"Client": ("x-mark\tseen",)}, target="/two",
    ),
    Sent(
        "output", "200 GET /say say changed by say",
        ("Client GET request", "pre-req say ✎ 1 change", "Upstream answered 200"), _PASSED,
        {"say": ("+ x-method: GET",)},
        {"Output": ("printed in two parts", "logged <b>boldly</b>"), "Asked": ("$request_method\tGET",)}, target="/say",
    ),
    Sent(
        "two phases and four steps", "203 GET /both both changed by gate, around, shout",
        ("Client GET request", "pre-req gate ✎ 2 changes", "pre-req around ✎ 1 change", "Upstream answered 200"),
        ("Client got 203", "post-resp shout ✎ 1 change", "post-resp around ✎ 1 change", "Upstream 200"),
        {"shout": ("Response body:", '+   "METHOD": "GET",'), "around 2": ("+ status  203",)}, target="/both",
        headers=_KEY,
    ),
    Sent(
        "markup of an attacker", "200 GET /mark/%3Cimg%20src=x%3E?<script>alert(1)</script> mark changed by mark",
        ("Client GET request", "pre-req mark ✎ 1 change", "Upstream answered 200"), _PASSED,
        {"mark": ("+ x-mark: seen",)},
        {"Client": ("<img src=x onerror=document.title=1>", "?<script>alert(1)</script>")},
        target="/mark/%3Cimg%20src=x%3E?<script>alert(1)</script>",
        headers=(("X-Attack", "<img src=x onerror=document.title=1>"),),
    ),
    Sent(
        "upstream that is down",
        "502 GET /down down the upstream failed: [Errno 111] Connect call failed ('127.0.0.1', 9)",
        ("Client GET request", "pre-req mark ✎ 1 change", "Upstream failed"), ("Client got 502", "Upstream no answer"),
        {"mark": ("+ x-mark: seen",)}, {"Upstream": ("Connect call failed",)}, target="/down",
    ),
    Sent(
        "plugin that is not mounted",
        "503 GET /unknown unknown the runner failed: failed to receive RPC_PREPARE_CONF: bad request",
        ("Client GET request", "pre-req nosuch ? the runner tells nothing of it", "Upstream not reached"),
        ("Client got 503", "Gateway answered"),
        tabs={
            "Frames": ("PrepareConf.Req", "Err.Resp", "BAD_REQUEST"),
            "Output": ("route unknown refused: plugin nosuch is not mounted",),
        },
        target="/unknown",
    ),
)  # fmt: skip
"""The requests."""
