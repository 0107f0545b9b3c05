"""Runs all rows, and writes ``docs/compatibility.md``: ``python -m tests.alike.ecosystem.page``."""

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..limits import LIMITS
from .rows import ROWS
from .rows.static import FOLDER
from .stage import COLLECTED, Row, differences, gateway, plain, unmet

__all__ = ["PAGE", "render", "versions_of"]

PAGE = Path(__file__).parents[3] / "docs" / "compatibility.md"

HEAD = """\
# Compatibility

`python -m tests.alike.ecosystem.page` writes this page out of `tests/alike/ecosystem/rows/`. Do not edit it by hand.

These are packages from PyPI, unmodified. Each is mounted as shown below. It gets {requests} requests or more twice:
through a gateway, real frames and the runner, and as plain ASGI or WSGI around the same upstream.

*Alike* means that both ways give the same: status, headers and body at the client; method, path, query, headers and
body at the upstream; and, for observers, metrics, spans or events. The comparison ignores the order of headers of
different names, `date` and `server`, and what belongs to a connection (`content-length`, `transfer-encoding`, …).

A result such as *alike but for: blank* names a limit of the protocol. The limits are listed at the end, and
[mapping.md](mapping.md) explains them. `make test-ecosystem` runs everything on this page.

**{alike} of {count} rows are alike**, on {total} requests.

The column *phase* says where a route lists the plugin: *request* in `ext-plugin-pre-req` (or `-post-req`), *response*
in `ext-plugin-post-resp`, *both* in both. [phases.md](phases.md) says more.

| plugin | package | version | phase | requests | result | remark |
| --- | --- | --- | --- | --- | --- | --- |
"""

ABSENT = """
## Not in the table

| package | reason |
| --- | --- |
| asgi-caches, starlette-caches | no release can be installed with Starlette 1 |
| asgi-signing-middleware, starlette-hmac | no release can be installed with Starlette 1 |

Limiters and session stores are tried with their packages' stores in memory, not with Redis.

## Configuration

For a pyproject.toml, and for the route's list (the value is JSON in a string). Names such as `gate:store` are objects
that a file cannot hold, in a module of one's own; here they are in `tests/alike/ecosystem/`.
"""


def versions_of(page: str) -> dict[str, str]:
    """Return the versions of packages that a page names."""
    return dict(re.findall(r"^\| [^|]+ \| ([^|]+) \| ([^|]+) \| (?:request|response|both) \|", page, re.MULTILINE))


def render(versions: Mapping[str, str], unlike: frozenset[str] = frozenset()) -> str:
    """Return the page.

    Args:
        versions: package → version.
        unlike: names of the rows that are not alike.
    """
    return "".join(_parts(versions, unlike))


def _parts(versions: Mapping[str, str], unlike: frozenset[str]) -> Iterator[str]:
    yield HEAD.format(
        requests=min(len(row.all_requests) for row in ROWS),
        alike=len(ROWS) - len(unlike),
        count=len(ROWS),
        total=sum(len(row.all_requests) for row in ROWS),
    )
    for row in ROWS:
        result = "differs" if row.name in unlike else "alike"
        if row.all_limits:
            result += " but for: " + ", ".join(f"*{name}*" for name in row.all_limits)
        remarks = [row.remark] if row.remark else []
        if row.alone is not None:
            limits = "".join(f", but for *{name}*" for name in row.alone)
            remarks.append(f"the request phase alone does too{limits}: a call less")
        yield (
            f"| [{row.name}](#{row.name}) | {row.package} | {versions[row.package]} | {row.phase} "
            f"| {len(row.all_requests)} | {result} | {'; '.join(remarks)} |\n"
        )
    yield ABSENT
    for row in ROWS:
        yield f"\n### {row.name}\n\n```toml\n"
        shown = [name for name in row.tables if not _of_tests(row.tables[name])]
        yield "\n".join("".join(_table(name, row.tables[name])) for name in shown)
        yield "```\n\n```yaml\n"
        listed = [(name, conf) for name, conf in [(row.name, row.conf), *row.inside] if name in shown]
        for phase in COLLECTED[row.phase]:
            yield f"ext-plugin-{phase}:\n  conf:\n"
            for name, conf in listed:
                yield f"    - {{name: {name}, value: '{json.dumps(dict(conf))}'}}\n"
        yield "```\n"
    yield "\n## Limits\n\n"
    met = {name for row in ROWS for name in row.all_limits}
    yield from (f"- *{name}*: {limit.summary}\n" for name, limit in LIMITS.items() if name in met)


def _of_tests(table: Mapping[str, Any]) -> bool:
    """Return whether a table is for a plugin that only tells the upstream what it sees."""
    return any(str(value).startswith("tests.alike.ecosystem.inside:") for value in table.values())


def _table(name: str, table: Mapping[str, Any]) -> Iterator[str]:
    yield f"[tool.asgi_bridge.plugins.{name}]\n"
    for key, value in table.items():
        yield f"{key} = {_toml(value)}\n"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key if key.isidentifier() else json.dumps(key)} = {_toml(each)}"
                                for key, each in value.items()) + " }"  # fmt: skip
    if isinstance(value, str):
        return json.dumps(value.removeprefix("tests.alike.ecosystem.").replace(FOLDER, "static"))
    return json.dumps(value)


def _run(row: Row) -> bool:
    here = plain(row)
    found = [*differences(row, here, gateway(row)), *unmet(row, here)]
    print(f"{row.name}: {'alike' if not found else 'differs'}", *found, sep="\n    ")
    return not found


def main() -> None:
    logging.disable()
    unlike = frozenset(row.name for row in ROWS if not _run(row))
    PAGE.write_text(render({row.package: version(row.package) for row in ROWS}, unlike), "utf-8")
    print(f"{len(ROWS) - len(unlike)} of {len(ROWS)}; wrote docs/{PAGE.name}")
    sys.exit(bool(unlike))


if __name__ == "__main__":
    main()
