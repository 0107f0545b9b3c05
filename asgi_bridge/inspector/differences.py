"""Differences between two requests, or two responses."""

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from ..dev_runner.body import Body

__all__ = ["headers_of", "in_words", "lines_of", "request_changes", "response_changes"]

MAX_LINES = 400
"""Maximum number of lines of a body that are compared line by line. The time grows with their square."""
MAX_CHARACTERS = 64 * 1024
"""Maximum length of such a body, in characters."""

Header = Sequence[str]


def headers_of(before: Sequence[Header], after: Sequence[Header]) -> list[dict[str, str | None]]:
    """Compare headers by name.

    Returns:
        For each header its name, and its value before and after; None: it was, or is, not there. Those of one name are
        compared in their order.
    """
    names = dict.fromkeys([*(name for name, _ in before), *(name for name, _ in after)])
    found: list[dict[str, str | None]] = []
    for name in names:
        old = [value for each, value in before if each == name]
        new = [value for each, value in after if each == name]
        for kind, start, stop, begin, end in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            ours: list[str | None] = list(old[start:stop])
            theirs: list[str | None] = list(new[begin:end])
            length = max(len(ours), len(theirs))
            ours += [None] * (length - len(ours))
            theirs += [None] * (length - len(theirs))
            found += [
                {"name": name, "before": one, "after": other, "kind": "same" if kind == "equal" else "changed"}
                for one, other in zip(ours, theirs, strict=True)
            ]
    return found


def request_changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Compare two requests but for their bodies.

    Returns:
        ``fields``: the changed ones of method, path and query, with what they were and are. ``headers``: all headers.
    """
    return {
        "fields": [
            {"name": name, "before": before[name], "after": after[name]}
            for name in ("method", "path", "query")
            if before[name] != after[name]
        ],
        "headers": headers_of(before["headers"], after["headers"]),
    }


def response_changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Compare two responses but for their bodies. It returns what `request_changes` does."""
    status = [{"name": "status", "before": str(before["status"]), "after": str(after["status"])}]
    return {
        "fields": status if before["status"] != after["status"] else [],
        "headers": headers_of(before["headers"], after["headers"]),
    }


def lines_of(before: Body, after: Body) -> list[tuple[str, str]] | None:
    """Compare two bodies line by line, JSON with a line for each value.

    Returns:
        Lines with ``" "``, ``"-"`` or ``"+"`` before them; None: they are no texts, or too long.
    """
    one, other = _readable(before), _readable(after)
    if one is None or other is None:
        return None
    old, new = one.split("\n"), other.split("\n")
    if max(len(old), len(new)) > MAX_LINES:
        return None
    found = []
    for kind, start, stop, begin, end in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            found += [(" ", line) for line in old[start:stop]]
        else:
            found += [("-", line) for line in old[start:stop]]
            found += [("+", line) for line in new[begin:end]]
    return found


def _readable(body: Body) -> str | None:
    if body.cut or body.size > MAX_CHARACTERS:
        return None
    try:
        content = body.kept.decode()
    except UnicodeDecodeError:
        return None
    if any(ord(char) < 32 and char not in "\t\n\r" for char in content):
        return None
    try:
        return json.dumps(json.loads(content), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return content.removesuffix("\n")


def in_words(changes: dict[str, Any] | None, body: dict[str, Any] | None, what: str) -> Iterator[str]:
    """Say in a few words what was changed: ``request path /old → /new``.

    Args:
        changes: What `request_changes` or `response_changes` has found; None: there is nothing to compare.
        body: ``before`` and ``after`` of the body, where it was changed.
        what: ``"request"`` or ``"response"``.
    """
    if changes is not None:
        for field in changes["fields"]:
            yield f"{what} {field['name']} {field['before']} → {field['after']}"
        for header in changes["headers"]:
            if header["kind"] == "changed":
                name, before, after = header["name"], header["before"], header["after"]
                if before is None:
                    yield f"{what} header + {name}: {after}"
                elif after is None:
                    yield f"{what} header {name} removed"
                else:
                    yield f"{what} header {name}: {before} → {after}"
    if body is not None:
        yield f"{what} body {body['before'].size:,} → {body['after'].size:,} bytes"
