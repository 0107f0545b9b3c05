"""A record as values that JSON has: a line of the list, and everything."""

from dataclasses import fields
from typing import Any

from ..apisix_constants import POST_RESP
from ..dev_runner.body import Body
from ..dev_runner.story import text
from .differences import lines_of
from .record import Exchanged, Headers, Record, Upstreamed
from .steps import Lane, Step, lanes

__all__ = ["detail_of", "outcome_of", "summary_of"]


def summary_of(record: Record) -> dict[str, Any]:
    """Return what the list of requests shows of a record."""
    return {
        "id": record.number,
        "at": record.at,
        "method": record.client.method,
        "target": text(record.client.target),
        "route": record.about.get("route"),
        "status": record.client.status or None,
        "milliseconds": record.milliseconds(record.finished),
        "plugins": record.plugins,
        "outcome": outcome_of(record),
        "fault": bool(record.error) or any(part.get("fault") for part in record.parts()) or _failed(record),
        "websocket": bool(record.about.get("websocket")),
        "again": record.again,
        "size": record.client.response_body.size,
    }


def _failed(record: Record) -> bool:
    if record.upstreams and record.upstreams[-1].error is not None:
        return True
    return any(each.call is not None and each.call.error is not None and not each.call.again for each in record.calls)


def outcome_of(record: Record) -> str:
    """Say in a few words what became of a request."""
    if record.finished is None:
        return "runs"
    if record.error is not None:
        return record.error
    ways = lanes(record)
    for lane in ways:
        for step in lane.steps:
            if step.state in ("answered", "failed") and not step.words.endswith("went on without it"):
                return f"{step.plugin} {step.words}"
        call = lane.call.call
        if call is not None and call.error is not None:
            return f"the runner failed: {call.error}" + (", and was passed over" if call.degraded else "")
    if record.about.get("route") is None and not ways:
        return "no route" if record.client.status == 404 else "refused by the gateway"
    if record.upstreams and record.upstreams[-1].error is not None:
        return f"the upstream failed: {record.upstreams[-1].error}"
    changed = [step.plugin for lane in ways for step in lane.steps if step.state == "changed"]
    if changed:
        return f"changed by {', '.join(dict.fromkeys(changed))}"
    return "passed" if record.upstreams else "answered by the gateway"


class _Bodies:
    """The bodies of a record, each once."""

    def __init__(self) -> None:
        self.all: list[Body] = []
        self._numbers: dict[Body, int] = {}

    def number(self, body: Body | None) -> int | None:
        if body is None:
            return None
        if body not in self._numbers:
            self._numbers[body] = len(self.all)
            self.all.append(body)
        return self._numbers[body]


def detail_of(record: Record) -> dict[str, Any]:
    """Return everything that is known of a record. Bodies are numbers of the list ``bodies``."""
    bodies = _Bodies()
    ways = lanes(record)
    return {
        **summary_of(record),
        "error": record.error,
        "about": record.about,
        "client": _exchanged(record.client, bodies),
        "lanes": [_lane(lane, record, bodies) for lane in ways],
        "upstreams": [_upstream(each, record, bodies) for each in record.upstreams],
        "frames": [
            {
                "at": record.milliseconds(frame.at),
                "sent": frame.sent,
                "name": frame.name,
                "size": frame.size,
                "fields": {
                    name: {"body": bodies.number(value)} if isinstance(value, Body) else value
                    for name, value in frame.fields.items()
                },
            }
            for frame in record.frames
        ],
        "asked": _asked(record, bodies),
        "lines": [
            {**line, "at": record.milliseconds(line["at"])}
            for line in sorted(record.lines, key=lambda line: float(line["at"]))
        ],
        "bodies": [{**body.as_json(), "cut": body.cut} for body in bodies.all],
    }


def _headers(headers: Headers) -> list[list[str]]:
    return [[text(name), text(value)] for name, value in headers]


def _exchanged(each: Exchanged, bodies: _Bodies) -> dict[str, Any]:
    response = None
    if each.status:
        response = {
            "status": each.status,
            "headers": _headers(each.response_headers),
            "body": bodies.number(each.response_body),
        }
    return {
        "request": {
            "method": each.method,
            "target": text(each.target),
            "headers": _headers(each.headers),
            "body": bodies.number(each.body),
        },
        "response": response,
    }


def _upstream(each: Upstreamed, record: Record, bodies: _Bodies) -> dict[str, Any]:
    return {
        **_exchanged(each, bodies),
        "to": each.to,
        "fetch": each.fetch,
        "sent": record.milliseconds(each.sent),
        "milliseconds": None if each.head is None else round((each.head - each.sent) * 1000, 3),
        "error": each.error,
    }


def _lane(lane: Lane, record: Record, bodies: _Bodies) -> dict[str, Any]:
    call = lane.call.call
    return {
        "phase": lane.phase,
        "listed": lane.listed,
        "milliseconds": None if call is None else round(call.milliseconds, 3),
        "error": None if call is None else call.error,
        "degraded": call is not None and call.degraded,
        "steps": [_step(step, bodies) for step in lane.steps],
        "shadows": lane.call.shadows,
        "in_response": call is not None and call.phase == POST_RESP,
    }


def _step(step: Step, bodies: _Bodies) -> dict[str, Any]:
    found = {each.name: getattr(step, each.name) for each in fields(step)}
    for what in ("request", "response"):
        exchange = getattr(step, what)
        if exchange is not None:
            before, after = exchange["body"]["before"], exchange["body"]["after"]
            found[what] = {
                **exchange,
                "body": {
                    "before": bodies.number(before),
                    "after": bodies.number(after),
                    "lines": None if after is None else lines_of(before or Body(), after),
                },
            }
    return found


def _asked(record: Record, bodies: _Bodies) -> list[dict[str, Any]]:
    """Return what the runner asked for in the middle of calls, with the answers."""
    found: list[dict[str, Any]] = []
    open_: list[dict[str, Any]] = []
    for frame in record.frames:
        if frame.name == "ExtraInfo.Req":
            asked = {"what": frame.fields["info"], "at": record.milliseconds(frame.at), "answer": None}
            found.append(asked)
            open_.append(asked)
        elif frame.name == "ExtraInfo.Resp" and open_:
            asked = open_.pop(0)
            result = frame.fields.get("result")
            if asked["what"].startswith("$"):
                asked["text"] = None if result is None else text(result.kept)
            else:
                asked["answer"] = bodies.number(result)
    return found
