"""What each plugin did to a request: a step for each, in words and as differences."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..apisix_constants import POST_RESP
from ..dev_runner.body import Body
from .differences import in_words, request_changes, response_changes
from .record import CallRecord, Record

__all__ = ["Lane", "Step", "lanes"]

_EMPTY: dict[str, Any] = {"status": 200, "headers": []}


@dataclass
class Step:
    """What one plugin did in one phase.

    Attributes:
        plugin: Its name.
        listed: In which list it stands: ``pre-req``, ``post-req`` or ``post-resp``.
        state: ``passed``, ``changed``, ``answered``, ``failed``, ``waits``, ``running``, ``skipped`` (the request did
            not reach it) or ``unknown`` (the runner tells nothing).
        words: What it did, in a few words.
        milliseconds: Its own time, without that of the plugins inside.
        changes: The changes, each in a few words.
        request: The request before and after it; None: nothing is known.
        response: The response before and after it; None: there was none.
        fault: What it raised; None: nothing.
    """

    plugin: str
    listed: str
    state: str
    words: str
    milliseconds: float | None = None
    changes: list[str] = field(default_factory=list)
    request: dict[str, Any] | None = None
    response: dict[str, Any] | None = None
    fault: dict[str, str] | None = None


@dataclass
class Lane:
    """The way through the plugins in one phase.

    Attributes:
        phase: ``request`` or ``response``.
        listed: In which list the plugins stand.
        steps: The outermost first.
        call: The call of the runner.
    """

    phase: str
    listed: str
    steps: list[Step]
    call: CallRecord


def lanes(record: Record) -> list[Lane]:
    """Return the ways through the plugins, call by call. A call that the gateway has repeated counts once."""
    found = []
    for each in record.calls:
        if each.call is not None and each.call.again:
            continue
        found.append(_lane(record, each))
    return found


def _lane(record: Record, each: CallRecord) -> Lane:
    call = each.call
    listed = call.phase.removeprefix("ext-plugin-") if call is not None else "?"
    if call is not None and call.phase == POST_RESP:
        return Lane("response", listed, list(_response_steps(record, each, listed)), each)
    names = each.plugins if each.plugins is not None else list(call.plugins if call is not None else ())
    steps = [_request_step(record, each, index, name, listed) for index, name in enumerate(names)]
    return Lane("request", listed, steps, each)


def _own_time(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else max(0.0, (end - start) * 1000)


def _request_step(record: Record, each: CallRecord, index: int, name: str, listed: str) -> Step:
    part = each.parts.get(index)
    if part is None:
        return _without_part(each, name, listed)
    request = _request_of(record, part)
    fault = part.get("fault")
    changes = list(in_words(request and request["changes"], _changed_body(request), "request"))
    waited = part.get("phase") == "request" and part.get("inside") is not None and _is_both(record, each, name)
    response = None if waited else _response_of(part, _EMPTY if part.get("passed") else None)
    more = [] if waited or part.get("passed") is None else list(_response_words(response))
    step = Step(name, listed, "passed", "passed the request on", changes=changes, request=request, response=response)
    entered, passed_at, done = part["entered"], part.get("passed_at"), part.get("done")
    if fault is not None and "late" in fault:
        step.fault = fault
    elif fault is not None and not (waited and part.get("inside")):
        step.fault = fault
        step.state = "failed"
        step.words = "no answer in time" if fault["kind"] == "timeout" else f"failed: {fault['text']}"
        if part.get("passed_over"):
            step.words += "; the request went on without it"
        step.milliseconds = _own_time(entered, passed_at if part.get("inside") is None and passed_at else done)
        return step
    if passed_at is not None:
        step.milliseconds = _own_time(entered, passed_at)
        if not waited and part.get("back") is not None and done is not None:
            step.milliseconds = (step.milliseconds or 0.0) + (_own_time(part["back"], done) or 0.0)
        step.changes = changes + more
        sent = part.get("sent")
        inside = part.get("inside") or _EMPTY
        if sent is not None and not waited and sent["status"] >= 400 > inside["status"]:
            step.state, step.words = "answered", f"answered {sent['status']}"
        elif step.changes:
            step.state, step.words = "changed", "changed the request" if changes else "changed the response"
        if _waits(record, part, each, name):
            step.words += ", and waits for the response"
        return step
    step.milliseconds = _own_time(entered, done)
    if part.get("passed_over"):
        step.state, step.words = "failed", "gave no answer; the request went on without it"
    elif part.get("sent") is not None:
        step.state, step.words = "answered", f"answered {part['sent']['status']}"
    elif part.get("ended"):
        step.state, step.words = "failed", "gave no answer"
    else:
        step.state, step.words = "running", "runs"
    return step


def _without_part(each: CallRecord, name: str, listed: str) -> Step:
    if each.plugins is None:
        return Step(name, listed, "unknown", "the runner tells nothing of it")
    return Step(name, listed, "skipped", "not reached")


def _is_both(record: Record, each: CallRecord, name: str) -> bool:
    """Whether a plugin of the request phase was run around the upstream: the response call lists it too."""
    later = record.calls[record.calls.index(each) + 1 :]
    return any(
        other.call is not None and other.call.phase == POST_RESP and name in other.call.plugins for other in later
    )


def _waits(record: Record, part: dict[str, Any], each: CallRecord, name: str) -> bool:
    """Whether the plugin has waited for the upstream's response, or still does."""
    return part.get("phase") == "request" and (
        _is_both(record, each, name) or (part.get("inside") is None and not part.get("ended") and bool(each.ended))
    )


def _response_steps(record: Record, each: CallRecord, listed: str) -> Iterator[Step]:
    """Return a step for each plugin that the response went through, the outermost first."""
    assert each.call is not None
    earlier = record.calls[: record.calls.index(each)]
    halves = {part["plugin"]: part for call in earlier for part in call.parts.values() if part.get("passed_at")}
    own = dict(enumerate(each.plugins or ()))
    by_name = {name: each.parts.get(index) for index, name in own.items()}
    for name in each.plugins if each.plugins is not None else each.call.plugins:
        part = by_name.get(name)
        half = halves.get(name) if part is None else None
        if half is not None and half.get("inside") is None and half.get("fault") is None:
            half = None
        if part is None and half is None:
            yield _without_part(each, name, listed)
            continue
        yield _response_step(part if part is not None else half or {}, name, listed, half is not None)


def _response_step(part: dict[str, Any], name: str, listed: str, is_half: bool) -> Step:
    response = _response_of(part, None)
    changes = list(_response_words(response)) if part.get("inside") is not None else []
    step = Step(name, listed, "passed", "passed the response on", changes=changes, response=response)
    fault = part.get("fault")
    before, after = part.get("passed_at") if not is_half else None, part.get("done")
    own = _own_time(part.get("back"), after)
    if not is_half:
        own = (own or 0.0) + (_own_time(part["entered"], before) or 0.0)
    step.milliseconds = own
    if fault is not None and "late" in fault:
        step.fault = fault
    elif fault is not None:
        step.state, step.fault = "failed", fault
        step.words = "no answer in time" if fault["kind"] == "timeout" else f"failed: {fault['text']}"
    elif part.get("inside") is None and part.get("sent") is not None:
        step.state, step.words = "answered", f"answered {part['sent']['status']}, and did not ask for the response"
        step.milliseconds = _own_time(part["entered"], after)
    elif part.get("sent") is None and part.get("ended"):
        step.state, step.words = "failed", "gave no answer"
    elif part.get("sent") is None:
        step.state, step.words = "running", "runs"
    elif changes:
        step.state, step.words = "changed", "changed the response"
    return step


def _request_of(record: Record, part: dict[str, Any]) -> dict[str, Any] | None:
    """Return the request before and after a plugin."""
    got, passed = part.get("got"), part.get("passed")
    if got is None:
        return None
    before: Body | None = part.get("got_body")
    after: Body | None = part.get("passed_body")
    if before is None and after is not None:
        before = record.client.body  # the plugin made a body without reading the request's
    changed = after is not None and before is not None and after != before
    return {
        "before": got,
        "after": passed,
        "changes": None if passed is None else request_changes(got, passed),
        "body": {"before": before, "after": after if changed else None},
    }


def _response_of(part: dict[str, Any], empty: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the response before and after a plugin; `empty` stands for one that nobody has asked for."""
    inside, sent = part.get("inside"), part.get("sent")
    if inside is None and sent is None:
        return None
    inside = inside or empty
    before: Body | None = part.get("inside_body")
    after: Body | None = part.get("sent_body")
    changed = after is not None and (before or Body()) != after
    return {
        "before": inside,
        "after": sent,
        "changes": None if inside is None or sent is None else response_changes(inside, sent),
        "body": {"before": before, "after": after if changed else None},
    }


def _changed_body(exchange: dict[str, Any] | None) -> dict[str, Any] | None:
    if exchange is None or exchange["body"]["after"] is None or exchange["body"]["before"] is None:
        return None
    found: dict[str, Any] = exchange["body"]
    return found


def _response_words(response: dict[str, Any] | None) -> Iterator[str]:
    if response is not None and response["changes"] is not None:
        yield from in_words(response["changes"], _changed_body(response), "response")
