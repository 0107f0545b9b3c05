"""Writes ``docs/plugins/``, a page for each ready-made plugin: ``python -m tests.apps.pages``.

A page comes from the docstring of the plugin's module, the JSON Schema of its configuration, and the table below.
`test_pages.py` tells when a page is stale. It also sends the requests of each page through a gateway with the page's
own route, and compares the answers.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from asgi_bridge_apps import ready_made
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from asgi_bridge import Bridge
from asgi_bridge.plugins import Plugin
from asgi_bridge.reference import Example, Field, example_of, fields_of

__all__ = ["FOLDER", "bridge", "pages"]

FOLDER = Path(__file__).parents[2] / "docs" / "plugins"
HOME = "http://127.0.0.1:9080"
TOKEN = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZGEiLCJleHAiOjQxMDI0NDQ4MDB9."
    "Pk6ghIHrrAonTenna0weaVPaX3hufO78YMKdHT7l6l0"
)
"""Of ``ada``, valid until 2100, signed with the secret of the example."""


@dataclass(frozen=True, slots=True)
class Try:
    """A request, and what is to be seen of its answer.

    Attributes:
        what: What it shows.
        arguments: Arguments of curl between ``curl -i`` and the URL; may be empty.
        path: Path and query.
        status: Status of the answer.
        shown: Headers of it, and then its body, where these matter. ``…`` stands for anything.
    """

    what: str
    arguments: str = ""
    path: str = "/"
    status: str = "200 OK"
    shown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """What a page has besides the docstring and the schema.

    Attributes:
        tries: Requests.
        conf: Configuration of the route, in place of the example of the schema.
        allow: What the operator has to allow.
        intro: Text in place of the docstring.
        run: How the runner is started, in place of the command of all others.
    """

    tries: tuple[Try, ...]
    conf: Mapping[str, Any] | None = None
    allow: str | None = None
    intro: str | None = None
    run: str | None = None


AFTER_THE_INDEX = """\
## What a route may say

A route may name only files and servers that the operator allows. At first it may name none:

```console
$ asgi-bridge run asgi_bridge_apps --allow https://idp.example.com/ --allow /etc/apisix/keys/ --allow redis://10.0.0.5
```

In Python write `ready_made(allow=[...])`, or `bridge.plugin("jwt-auth", allow=[...])(jwt_auth)` for one plugin.
[What a route may say](../architecture.md#what-a-route-may-say) has the reasons.

## Routes that you have

`say`, `stop`, `rewrite`, `request-body-rewrite`, `fault-injection`, `limit-req` and `response-rewrite` take the
configuration of the examples of the official Go and Python runners. Routes that were written for those still work.
"""

WITH_AUTH_APP = """\
# gate.py
from asgi_bridge_apps import ready_made
from starlette.responses import PlainTextResponse


async def auth(scope, receive, send):
    known = dict(scope["headers"]).get(b"authorization") == b"Bearer let me in"
    answer = PlainTextResponse("", 200, {"x-user": "ada"}) if known else PlainTextResponse("who are you?", 401)
    await answer(scope, receive, send)


bridge = ready_made(auth_app=auth)
"""


def _got(name: str, value: str) -> tuple[str, ...]:
    """Return the part of the echoing upstream's answer that shows a header which it got."""
    return "…", f'   "{name}",', f'   "{value}"', "…"


TRACE = "00-0af7651916cd43dd8448eb211c80319c"
PREFLIGHT = "-X OPTIONS -H 'Origin: {}' -H 'Access-Control-Request-Method: GET'"
PAGES: Mapping[str, Page] = {
    "say": Page((Try("The plugin answers in place of the upstream.", shown=("hello",)),)),
    "stop": Page((Try("Nothing reaches the upstream.", status="410 Gone", shown=("gone",)),)),
    "rewrite": Page((
        Try("The upstream gets another path and other headers.", "-H 'Cookie: a=1'", "/old",
            shown=("…", ' "path": "/new",', *_got("x-env", "test"))),
    )),
    "request-body-rewrite": Page((
        Try("The upstream gets another body.", "-d 'a body'", shown=("…", ' "body": "another body"', "}")),
    )),
    "response-rewrite": Page((Try("The client gets another header.", shown=("x-served-by: gateway",)),)),
    "fault-injection": Page((Try("The upstream is spared.", status="503 Service Unavailable"),)),
    "limit-req": Page((
        Try("The first request passes."),
        Try("A second one comes too early.", status="503 Service Unavailable", shown=("Too many requests",)),
    )),
    "limit-count": Page((
        Try("Two requests pass in a minute.",
            shown=("x-ratelimit-limit: 2", "x-ratelimit-remaining: 1", "x-ratelimit-reset: …")),
        Try("The second is the last.", shown=("x-ratelimit-remaining: 0",)),
        Try("A third has to wait.", status="429 Too Many Requests",
            shown=("x-ratelimit-remaining: 0", "retry-after: …", "Too many requests")),
    )),
    "jwt-auth": Page((
        Try("Without a token nobody passes.", status="401 Unauthorized",
            shown=('www-authenticate: Bearer realm="apisix"', "a bearer token is required")),
        Try("With a token the upstream learns who it is. This token is valid until 2100.",
            f"-H 'Authorization: Bearer {TOKEN}'", shown=_got("x-user", "ada")),
    )),
    "oidc": Page((
        Try("A program cannot log in.", status="401 Unauthorized", shown=("a login is required",)),
        Try("Nobody ends a login that they have not begun.", path="/.oidc/callback?state=x&code=y",
            status="400 Bad Request",
            shown=("This login is too old, or began in another browser. Open the page again.",)),
    ), allow="https://idp.example.com/"),
    "basic-auth": Page((
        Try("Without a password nobody passes.", status="401 Unauthorized",
            shown=('www-authenticate: Basic realm="apisix", charset="UTF-8"',)),
        Try("With it, the request passes.", "-u 'ada:correct horse'"),
    )),
    "key-auth": Page((
        Try("Without a key nobody passes.", status="401 Unauthorized",
            shown=('www-authenticate: ApiKey realm="apisix"',)),
        Try("With a key the upstream learns whose it is.", "-H 'apikey: an-example-to-change'",
            shown=_got("x-consumer", "ada")),
    )),
    "hmac-auth": Page((
        Try("A request that is not signed is refused.", status="401 Unauthorized",
            shown=('www-authenticate: Signature realm="apisix", headers="@request-target date"',
                   "a signature is required")),
    )),
    "ip-access": Page((
        Try("The own machine may not pass.", status="403 Forbidden", shown=("Your address may not pass",)),
    )),
    "request-id": Page((
        Try("Each request has an id, for the upstream and the client.", shown=("x-request-id: …",)),
        Try("A client may choose it.", "-H 'X-Request-Id: 42'",
            shown=("x-request-id: 42", *_got("x-request-id", "42"))),
    )),
    "otel": Page((
        Try("The upstream goes on with the client's trace.", f"-H 'traceparent: {TRACE}-b7ad6b7169203331-01'",
            shown=("…", '   "traceparent",', f'   "{TRACE}-…-01"', "…")),
    )),
    "forward-auth": Page((
        Try("The application refuses.", status="401 Unauthorized", shown=("who are you?",)),
        Try("The application permits, and says who it is.", "-H 'Authorization: Bearer let me in'",
            shown=_got("x-user", "ada")),
    ), run="gate.py"),
    "etag": Page((Try("The body has a tag.", shown=('etag: "…"',)),)),
    "server-timing": Page((
        Try("The client learns how long the upstream took.", shown=("server-timing: upstream;dur=…",)),
    )),
    "cors": Page((
        Try("A browser asks before it calls.", PREFLIGHT.format("https://shop.test"),
            shown=("access-control-allow-origin: https://shop.test", "access-control-max-age: 600")),
        Try("Other origins are not told that they may.", PREFLIGHT.format("https://evil.test"),
            status="400 Bad Request", shown=("Disallowed CORS origin",)),
    )),
    "trusted-host": Page((
        Try("A known host passes.", "-H 'Host: shop.test'"),
        Try("Another one does not.", "-H 'Host: evil.test'", status="400 Bad Request",
            shown=("Invalid host header",)),
    )),
    "https-redirect": Page(
        (Try("Plain HTTP is sent to HTTPS.", "-H 'Host: shop.test'", "/a?b=1", status="307 Temporary Redirect",
             shown=("location: https://shop.test/a?b=1",)),),
        intro="Starlette's HTTPSRedirectMiddleware: it redirects requests over plain HTTP to HTTPS.",
    ),
    "session": Page((Try('A request passes. Plugins behind this one have `scope["session"]`.'),)),
    "gzip": Page((
        Try("The body is compressed.", "--compressed -H 'Accept-Encoding: gzip'", shown=("content-encoding: gzip",)),
    ), conf={"minimum_size": 10}),
}  # fmt: skip
"""Plugin → its page. Each ready-made plugin has one."""


async def _auth(scope: Scope, receive: Receive, send: Send) -> None:
    known = dict(scope["headers"]).get(b"authorization") == b"Bearer let me in"
    answer = PlainTextResponse("", 200, {"x-user": "ada"}) if known else PlainTextResponse("who are you?", 401)
    await answer(scope, receive, send)


def bridge() -> Bridge:
    """Return the ready-made plugins, as the pages start them."""
    return ready_made(auth_app=_auth, allow=[page.allow for page in PAGES.values() if page.allow])


def pages() -> dict[str, str]:
    """Return the text of each page, by the name of its file."""
    plugins = bridge().plugins
    made = {f"{name}.md": "\n".join(_page(plugins[name], page)) for name, page in PAGES.items()}
    return {"README.md": "\n".join(_index(plugins)), **made}


def _index(plugins: Mapping[str, Plugin]) -> Iterator[str]:
    yield "# Ready-made plugins"
    yield ""
    yield "`asgi-bridge run asgi_bridge_apps` mounts them all, and `asgi-bridge plugins asgi_bridge_apps` lists them."
    yield "They need the packages of the extra `apps`. Each page has all fields of a plugin, and a route to paste."
    yield "`python -m tests.apps.pages` writes these pages. A test sends their requests through a gateway."
    yield ""
    yield "| plugin | phase | does |"
    yield "| --- | --- | --- |"
    for name in sorted(PAGES):
        yield f"| [{name}]({name}.md) | {plugins[name].options.phase} | {_cell(_first_sentence(name))} |"
    yield ""
    yield AFTER_THE_INDEX


def _docstring(name: str) -> str:
    page = PAGES[name]
    if page.intro is not None:
        return page.intro
    module = import_module(f"asgi_bridge_apps.{name.replace('-', '_')}")
    return _markdown(inspect.cleandoc(module.__doc__ or ""))


def _first_sentence(name: str) -> str:
    first = " ".join(_docstring(name).split("\n\n")[0].split())
    sentence = re.split(r"(?<=\.) (?=[A-Z])", first)[0]
    found = sentence.removeprefix(f"`{name}`: ")
    return found[0].upper() + found[1:]


def _markdown(text: str) -> str:
    """Return a docstring as Markdown."""
    text = re.sub(r":(?:class|func|data|meth|mod):`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    text = text.replace("``", "`")
    lines: list[str] = []
    fenced = False
    for line in text.splitlines():
        if fenced and line and not line.startswith("    "):
            while not lines[-1]:
                lines.pop()
            lines += ["```", ""]
            fenced = False
        lines.append(line[4:] if fenced else line)
        if line.endswith("::") and not fenced:
            lines[-1] = line[:-1]
            fenced = True
            lines += ["", "```FENCE"]
    if fenced:
        lines.append("```")
    text = "\n".join(lines)
    for found in re.findall(r"```FENCE\n\n(.*?)\n```", text, re.DOTALL):
        text = text.replace(f"```FENCE\n\n{found}", f"```{_language(found)}\n{found}", 1)
    return text


def _language(code: str) -> str:
    if re.match(r"\[\w", code):
        return "toml"
    return "python" if re.search(r"^(from|import|bridge\.|\w+ = )", code, re.MULTILINE) else "text"


def _page(plugin: Plugin, page: Page) -> Iterator[str]:
    yield f"# {plugin.name}"
    yield ""
    yield _docstring(plugin.name)
    yield ""
    yield f"Phase: {_phase(plugin)}"
    yield ""
    yield "## Fields"
    yield ""
    fields = fields_of(plugin.configuration.schema())
    if fields:
        yield "| field | type | default | what it is |"
        yield "| --- | --- | --- | --- |"
        yield from map(_row, fields)
    else:
        yield "There is nothing to configure."
    yield ""
    example = example_of(plugin)
    if page.conf is not None:
        example = Example(example.name, page.conf, example.lists, True)
    yield "## A route"
    yield ""
    yield "```yaml"
    yield example.text.rstrip()
    yield "```"
    yield ""
    yield from _start(page)
    for each in page.tries:
        yield each.what
        yield ""
        yield "```console"
        arguments = f" {each.arguments}" if each.arguments else ""
        url = HOME + each.path
        yield f"$ curl -i{arguments} {url if re.fullmatch('[!-%+-~]*', url) and '&' not in url else repr(url)}"
        yield f"HTTP/1.1 {each.status}"
        head = [line for line in each.shown if re.match("[a-z-]+: ", line)]
        yield from head
        if len(head) < len(each.shown):
            yield ""
            yield from each.shown[len(head) :]
        yield "```"
        yield ""


def _start(page: Page) -> Iterator[str]:
    if page.run:
        yield "Save the route as `apisix.yaml`, and write a file `gate.py`:"
        yield ""
        yield "```python"
        yield WITH_AUTH_APP.rstrip()
        yield "```"
        yield ""
        yield "Start both without an APISIX:"
    else:
        yield "Save it as `apisix.yaml`, and start it without an APISIX:"
    yield ""
    yield "```console"
    allow = f" --allow {page.allow}" if page.allow else ""
    yield f"$ asgi-bridge dev {page.run or 'asgi_bridge_apps'} --routes apisix.yaml{allow}"
    yield "```"
    yield ""


def _phase(plugin: Plugin) -> str:
    return {
        "auto": "the one that the route lists it in; list it in `ext-plugin-pre-req` for the request.",
        "request": "request. List it in `ext-plugin-pre-req` or `ext-plugin-post-req`.",
        "response": "response. List it in `ext-plugin-post-resp`.",
        "both": "both. List it in `ext-plugin-pre-req` and in `ext-plugin-post-resp`, with the same configuration.",
    }[plugin.options.phase]


def _row(each: Field) -> str:
    default = "required" if each.required else f"`{each.default}`" if each.default else ""
    name = f"`{each.name}`"
    return f"| {name} | {_cell(each.type)} | {_cell(default)} | {_cell(each.description)} |".replace("|  |", "| |")


def _cell(text: str) -> str:
    """Return a text for a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> None:
    """Write all pages, and remove those of plugins that are no more."""
    FOLDER.mkdir(exist_ok=True)
    made = pages()
    for old in FOLDER.glob("*.md"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
