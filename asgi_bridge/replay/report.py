"""What ``asgi-bridge replay`` prints: a small diff of each action that differs, and the counts."""

import difflib
import json
from collections import Counter
from collections.abc import Iterator

from ..logs import one_line
from ..recording.lines import Json
from .reader import Reader
from .replay import Replayed, Verdict

__all__ = ["json_line", "summary", "text_lines"]

MAX_TEXT = 200
"""Maximum length of a printed value, in characters."""
_NAMES = {"headers": "header", "resp_headers": "response header", "args": "argument"}
"""Field of an action → what its entries are called."""


def _shown(action: Json) -> list[str]:
    """Return the lines that show an action."""
    kind = action["kind"]
    shown = [f"{kind} {action['status']}" if "status" in action else kind]
    if kind == "error":
        shown[0] += f" {action['code']}"
    if "reason" in action:
        shown.append(f"reason {action['reason']}")
    if "path" in action:
        shown.append(f"path {action['path']}")
    for field, name in _NAMES.items():
        for each, value in action.get(field, ()):
            shown.append(f"{name} {each} deleted" if value is None else f"{name} {each}: {value}")
    if "body" in action:
        shown += [f"body {line}" for line in action["body"].split("\n")]
    return shown


def diff_of(then: Json, now: Json) -> list[str]:
    """Return the lines of two actions that differ: ``- `` before a recorded one, ``+ `` before one of today."""
    before, after = _shown(then), _shown(now)
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False) if len(before) + len(after) < 400 else None
    found = []
    if matcher is None:
        same = next((i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), 0)
        found = [f"- {each}" for each in before[same : same + 1]] + [f"+ {each}" for each in after[same : same + 1]]
    else:
        for tag, a, b, c, d in matcher.get_opcodes():
            if tag != "equal":
                found += [f"- {each}" for each in before[a:b]] + [f"+ {each}" for each in after[c:d]]
    return [_cut(each, found) for each in found]


def _cut(line: str, lines: list[str]) -> str:
    """Return a line of a diff, of a long one the part around the first character that differs."""
    text = one_line(line)
    if len(text) <= MAX_TEXT:
        return text
    others = [one_line(other)[2:] for other in lines if other[0] != line[0]]
    at = max((next((i for i, pair in enumerate(zip(text[2:], other, strict=False)) if pair[0] != pair[1]), 0)
              for other in others), default=0)  # fmt: skip
    start = max(0, at - MAX_TEXT // 2)
    middle = text[2 + start : 2 + start + MAX_TEXT]
    return f"{text[:2]}{'…' if start else ''}{middle}{'…' if len(text) > 2 + start + MAX_TEXT else ''}"


def text_lines(replayed: Replayed) -> Iterator[str]:
    """Give the lines about a call that differs, or that cannot be compared."""
    route = f"route {replayed.route or '?'}"
    where = f"{replayed.phase} phase, {route}, plugin {', '.join(replayed.plugins)} (line {replayed.line})"
    yield one_line(f"{replayed.method or '?'} {replayed.path or '?'} - {where}")
    if replayed.why:
        unknown = replayed.verdict is Verdict.UNKNOWN
        yield one_line(f"  {'cannot be compared' if unknown else 'may differ only here'}: {replayed.why}")
    for line in diff_of(replayed.then, replayed.now):
        yield f"  {line}"
    for fault in replayed.faults:
        yield one_line(f"  today: {fault}")


def json_line(replayed: Replayed) -> str:
    """Return a call that differs, or that cannot be compared, as a JSON object."""
    return json.dumps({
        "verdict": replayed.verdict.value,
        "line": replayed.line,
        "phase": replayed.phase,
        "method": replayed.method,
        "path": replayed.path,
        "route": replayed.route,
        "plugins": replayed.plugins,
        "why": replayed.why or None,
        "diff": diff_of(replayed.then, replayed.now),
        "then": replayed.then,
        "now": replayed.now,
        "faults": replayed.faults,
    })  # fmt: skip


def summary(counts: Counter[Verdict], recording: Reader) -> Json:
    """Return the counts of a replay."""
    return {
        "calls": counts.total(),
        "same": counts[Verdict.SAME],
        "differ": counts[Verdict.DIFFERS],
        "unknown": counts[Verdict.UNKNOWN],
        "left_out": recording.left_out,
        "unreadable_lines": len(recording.unreadable),
    }
