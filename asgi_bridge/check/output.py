"""Findings as text: for people, for programs, and for the annotations of GitHub."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ..gateway.routes.places import Finding

__all__ = ["FORMATS", "count"]


def count(findings: Sequence[Finding]) -> tuple[int, int]:
    """Return how many of the findings are errors, and how many are warnings."""
    severities = [finding.severity for finding in findings]
    return severities.count("error"), severities.count("warning")


def _summary(findings: Sequence[Finding]) -> str:
    errors, warnings = count(findings)
    return f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"


def _text(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings:
        yield f"{finding.where}: {finding.severity}: {finding.message}".removeprefix(": ")
    yield _summary(findings)


def _json(findings: Sequence[Finding]) -> Iterator[str]:
    errors, warnings = count(findings)
    described = [
        {
            "severity": finding.severity,
            "file": finding.file or None,
            "line": finding.line,
            "route": finding.route,
            "plugin": finding.plugin,
            "field": finding.field,
            "message": finding.message,
        }
        for finding in findings
    ]
    yield json.dumps({"errors": errors, "warnings": warnings, "findings": described}, indent=2, ensure_ascii=False)


_COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}


def _github(findings: Sequence[Finding]) -> Iterator[str]:
    """Make the commands of GitHub's runners that annotate a line of a file."""
    for finding in findings:
        properties = {"title": "asgi-bridge check"}
        if finding.file and not finding.file.startswith("<"):  # not standard input
            properties["file"] = finding.file
            properties |= {} if finding.line is None else {"line": str(finding.line)}
        given = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items())
        message = finding.message if "file" in properties else str(finding)
        yield f"::{_COMMANDS[finding.severity]} {given}::{_escaped(message)}"
    yield _summary(findings)


def _escaped(text: str, more: Iterable[str] = "") -> str:
    for character in ("%", "\r", "\n", *more):
        text = text.replace(character, f"%{ord(character):02X}")
    return text


FORMATS: Mapping[str, Callable[[Sequence[Finding]], Iterator[str]]] = {"text": _text, "json": _json, "github": _github}
"""Values of ``--format``, and the functions that make the lines of the output."""
