"""What may differ with a gateway: limits of the protocol and of APISIX. The documentation has a line about each."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .compare import Answer, Request, Result, Seen

__all__ = ["LIMITS", "Limit", "comparable", "needed", "undocumented"]

ROOT = Path(__file__).parents[2]

Gives = Callable[[Request, Answer], Answer]


def _as_it_is(request: Request, answer: Answer) -> Answer:
    return answer


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Something that the protocol, or APISIX itself, does not let through.

    Attributes:
        gives: makes of the answer without a gateway the one that a client gets from the gateway.
        lines: path of a document → its words about this limit.
        summary: the limit in a few words, for ``docs/compatibility.md``.
        page: the gateway answers with its own page, of which only the status is compared.
        unseen: the upstream does not get the request.
        passes: makes of what the upstream gets without a gateway what it gets from the gateway. None: the same.
    """

    gives: Gives = field(default=_as_it_is)
    lines: Mapping[str, str]
    summary: str = ""
    page: bool = False
    unseen: bool = False
    passes: Callable[[Seen], Seen] | None = None


def comparable(request: Request, plain: Result, through: Result, limits: Iterable[Limit]) -> tuple[Result, Result]:
    """Return what came of a request on both sides, as far as it has to be equal.

    Args:
        request: the request.
        plain: what came of it without a gateway.
        through: what came of it through gateway and runner.
        limits: what lies between the two.
    """
    for limit in limits:
        answer, seen = limit.gives(request, plain.answer), plain.seen
        if limit.page and answer is not plain.answer:
            through = Result(_page(through.answer.status), through.seen)
            seen = () if limit.unseen else seen
        if limit.passes is not None:
            seen = tuple(map(limit.passes, seen))
        plain = Result(answer, seen)
    return plain, through


def needed(limit: Limit, request: Request, plain: Result) -> bool:
    """Return whether `limit` makes a difference to what came of `request` without a gateway."""
    return limit.gives(request, plain.answer) is not plain.answer or (
        limit.passes is not None and tuple(map(limit.passes, plain.seen)) != plain.seen
    )


def undocumented(limit: Limit) -> list[str]:
    """Return the documents that lack the words of `limit`. Line breaks do not matter."""
    return [
        document
        for document, line in limit.lines.items()
        if line not in " ".join((ROOT / document).read_text("utf-8").split())
    ]


def _page(status: int) -> Answer:
    return Answer(status, {}, None, b"")


def _refused(request: Request, answer: Answer) -> Answer:
    return _page(503)


def _unescaped(request: Request, answer: Answer) -> Answer:
    return _page(502) if "%" in request.target.partition("?")[0] else answer


def _blank(request: Request, answer: Answer) -> Answer:
    bodyless = request.method == "HEAD" or answer.status in (204, 304)
    return answer if bodyless or answer.body or answer.status < 300 else dataclasses.replace(answer, body=b" ")


def _beside(request: Request, answer: Answer) -> Answer:
    turned = {
        name: values[::-1] if len(values) == 2 and name != "set-cookie" else values
        for name, values in answer.headers.items()
    }
    return answer if turned == answer.headers else dataclasses.replace(answer, headers=turned)


def _untyped(request: Request, answer: Answer) -> Answer:
    if answer.status != 204 or "content-type" not in answer.headers:
        return answer
    return _with_headers(answer, content_type=None)


def _with_headers(answer: Answer, **headers: list[str] | None) -> Answer:
    """Change headers of `answer`. None takes a header away."""
    after = {**answer.headers, **{name.replace("_", "-"): values for name, values in headers.items()}}
    return dataclasses.replace(answer, headers={name: values for name, values in after.items() if values is not None})


def _not_modified(request: Request, answer: Answer) -> Answer:
    return dataclasses.replace(_with_headers(answer, content_type=None), status=304, body=b"")


def _uncompressed(request: Request, answer: Answer) -> Answer:
    return dataclasses.replace(_with_headers(answer, vary=None, content_encoding=None), length="3000")


MAPPING, PHASES = "docs/mapping.md", "docs/phases.md"

LIMITS: dict[str, Limit] = {
    "fault": Limit(
        gives=_refused,
        lines={
            MAPPING: "| exception, broken ASGI message, no answer, timeout, before the answer "
            "| SERVICE_UNAVAILABLE | 503 |"
        },
        summary="an exception is 503, with the gateway's page",
        page=True,
    ),
    "path": Limit(
        gives=_unescaped,
        lines={
            MAPPING: "in `ext-plugin-post-resp` alone, a path that needs escaping (`%20`) is answered with 502",
            PHASES: "A path that needs escaping (`%20`, `%3F`, `%23`) is answered with 502",
        },
        summary="listed in ext-plugin-post-resp alone, a path with escapes is 502",
        page=True,
        unseen=True,
    ),
    "emptied": Limit(
        gives=_refused,
        lines={MAPPING: "| body, by another `receive` | `body` | an emptied one and one over 16 MiB are refused |"},
        summary="a request body that is read and not handed on is refused",
        page=True,
        unseen=True,
    ),
    "forwarded": Limit(
        lines={
            MAPPING: "APISIX overwrites a client's own `x-forwarded-*` from 3.14 on only, and keeps a trusted client's"
        },
        summary="x-forwarded-proto is what the gateway says of its own client, unless it trusts that client",
        passes=lambda seen: dataclasses.replace(
            seen, headers=tuple((name, value.replace('"https"', '"http"')) for name, value in seen.headers)
        ),
    ),
    "beside": Limit(
        gives=_beside,
        lines={MAPPING: "`resp_headers`, added beside the upstream's of the same name"},
        summary="in the request phase a header is added before the upstream's of the same name, not after it",
    ),
    "input": Limit(
        gives=_refused,
        lines={MAPPING: "Once the request was passed on, `wsgi.input` is empty."},
        summary="a request body that was passed on unread cannot be read afterwards",
        page=True,
    ),
    "no-content": Limit(
        gives=_untyped,
        lines={MAPPING: "| `content-type` of a 204 | nothing: nginx drops it |"},
        summary="nginx drops the content-type of a 204",
    ),
    "blank": Limit(
        gives=_blank,
        lines={
            MAPPING: "| empty body, status 300 or more | a body of one blank "
            "| else nginx puts its own HTML page there (a *cure*) |"
        },
        summary="an empty body of a status of 300 or more is one blank",
    ),
    "empty stream": Limit(
        gives=lambda request, answer: dataclasses.replace(answer, body=b" "),
        lines={MAPPING: "| empty body, streamed by the upstream | a body of one blank (warning) |"},
    ),
    "conditions": Limit(
        gives=_not_modified,
        lines={MAPPING: "APISIX answers conditional requests itself where a plugin's answer is a 200"},
    ),
    "charset": Limit(
        gives=lambda request, answer: _with_headers(answer, content_type=["text/plain; charset=utf-8"]),
        lines={MAPPING: "APISIX adds `; charset=utf-8` to a `content-type` of text"},
    ),
    "upstream status": Limit(
        gives=lambda request, answer: _with_headers(answer, x_apisix_upstream_status=["503"]),
        lines={MAPPING: "APISIX adds `x-apisix-upstream-status` to an upstream's 5xx"},
    ),
    "HEAD has no body": Limit(gives=_uncompressed, lines={PHASES: "On HEAD there is no body for anybody"}),
    "escaped slash": Limit(
        gives=lambda request, answer: dataclasses.replace(
            answer, body=answer.body.replace(b"/echo/a%2Fb", b"/echo/a/b")
        ),
        lines={PHASES: "and `%2F` arrives as `/`"},
    ),
}
"""Limits by their names."""
