"""Loads routes: from APISIX's standalone ``apisix.yaml``, or another form in which people keep them.

Every error names its line of the file. Strictly, as in tests, what APISIX refuses is an error, and so is what the
stand-in cannot do. Otherwise, as in ``asgi-bridge dev``, both are findings: a route that APISIX drops is dropped here
too, and what the stand-in cannot do is ignored.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import ConfigurationError
from .environment import MissingVariables, replace_in_values
from .forms import translated
from .kubernetes import is_kubernetes, read_kubernetes
from .places import Finding, LinedMapping, Misplaced, Part, Place, Report
from .reader import Reader
from .route import Routes
from .schema import SECTIONS
from .text import END, Text, read_text

__all__ = ["decode", "load_routes", "parse_files", "parse_routes", "read_routes"]


def load_routes(path: str | Path, *, strict: bool = True) -> Routes:
    """Read a route file.

    Args:
        path: The file: an ``apisix.yaml`` or ``apisix.json``, JSON of the Admin API, ADC's YAML, or resources of the
            ingress controller for Kubernetes. What is in it tells which.
        strict: True: what APISIX refuses, and what the stand-in cannot do, is an error. False: it is kept in
            `Routes.findings`. Routes that APISIX drops are left out, the rest is ignored.

    Raises:
        ConfigurationError: The file cannot be read, or something in it is wrong.
    """
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise ConfigurationError(f"{path}: the route file cannot be read: {reason}") from None
    return parse_routes(decode(content, str(path)), str(path), strict=strict)


def decode(content: bytes, file: str) -> str:
    """Return the text of a route file.

    Args:
        content: Its bytes.
        file: The file's name, for messages.

    Raises:
        Misplaced: It is not UTF-8.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise Place(file, line=line).wrong("the route file cannot be read: it is not UTF-8; save it as UTF-8") from None


def parse_routes(text: str, file: str = "apisix.yaml", *, strict: bool = True) -> Routes:
    """Read routes from the text of a route file.

    Args:
        text: YAML that ends with ``#END``, or another form; see `load_routes`.
        file: The file's name, for messages.
        strict: See `load_routes`.

    Raises:
        ConfigurationError: Something in it is wrong. The message says what, where, and what to do.
    """
    try:
        return _parsed(text, file, Report(strict))
    except RecursionError:
        raise Place(file).wrong(_NESTED) from None


def parse_files(files: Iterable[tuple[str, str | bytes]]) -> list[Routes]:
    """Read several files, as `parse_routes` does without `strict`.

    Each ``apisix.yaml`` stands for itself. Files of other forms are parts of one configuration: routes of one refer to
    the services and plugin configurations of another. What they refer to may also be in no file that is given.

    Args:
        files: Names and contents of the files.

    Returns:
        The routes of each ``apisix.yaml``, and then those of all other files together. What is wrong is a finding.
    """
    found: list[Routes] = []
    parts = LinedMapping()
    resources: list[Part] = []
    shared = Report(strict=False, partial=True)
    null_is_table = True
    for file, content in files:
        top, report = Place(file), Report(strict=False)
        try:
            text = _content(content if isinstance(content, str) else decode(content, file), file)
            if any(map(is_kubernetes, text.documents)):
                resources += [Part(each, top) for each in text.documents]
                sections = LinedMapping()
            else:
                own = translated(text.documents, top, shared)
                if own is None:
                    _refuse_others(text, top)
                    found.append(_whole(text, top, report))
                    continue
                sections = own
            null_is_table = null_is_table and not text.json
            _report_twice(text, top, shared)
            _join(parts, sections, top)
        except RecursionError:
            found.append(_failed(top.wrong(_NESTED)))
        except ConfigurationError as exc:
            found.append(_failed(exc))
    try:
        if resources:
            _join(parts, read_kubernetes(resources, shared), resources[0].place)
        if parts or shared.findings:
            found.append(Reader(parts, Place(""), shared, null_is_table=null_is_table).read())
    except ConfigurationError as exc:
        found.append(_failed(exc, shared.findings))
    return found


_NESTED = "lists and mappings are nested too deeply"


def _refuse_others(text: Text, top: Place) -> None:
    """Refuse a file that is no ``apisix.yaml`` either, such as an error page.

    Raises:
        Misplaced: None of its keys is one of APISIX's sections.
    """
    data = text.documents[0] if text.documents else {}
    if isinstance(data, Mapping) and data and not data.keys() & set(SECTIONS):
        raise top.wrong(
            "there are no routes in this: it is no apisix.yaml, no JSON of the Admin API, no file of ADC, and no "
            f"resource of Kubernetes. Its fields are {', '.join(map(str, data)):.200}"
        )


def _join(parts: LinedMapping, sections: LinedMapping, top: Place) -> None:
    """Add the sections of another file to `parts`."""
    here = Part(sections, top)
    for name, section in sections.items():
        if isinstance(section, list) and isinstance(parts.get(name, []), list):
            for entry in here.at(name).entries():
                parts.append(name, entry.value, entry.place)
        else:
            parts.put(name, section, here.at(name).place)


def _failed(exc: ConfigurationError, earlier: Sequence[Finding] = ()) -> Routes:
    report = Report(strict=False)
    for error in exc.errors if isinstance(exc, MissingVariables) else [exc]:
        report.wrong(error if isinstance(error, Misplaced) else Place("").wrong(str(error)))
    return Routes(findings=[*earlier, *report.findings])


def _parsed(text: str, file: str, report: Report) -> Routes:
    content, top = _content(text, file), Place(file)
    sections = translated(content.documents, top, report)
    if sections is None:
        return _whole(content, top, report)
    _report_twice(content, top, report)
    return Reader(sections, top, report, null_is_table=not content.json).read()


def _content(text: str, file: str) -> Text:
    if not text.strip():
        raise Place(file).wrong(f"the file is empty; one without routes has at least the line {END}")
    return read_text(text, file)


def _whole(content: Text, top: Place, report: Report) -> Routes:
    """Read an ``apisix.yaml`` or an ``apisix.json``."""
    data = content.documents[0] if content.documents else {}
    if not content.ended and not content.json:
        raise top.wrong(
            f"the last line has to be {END}; APISIX does not read a file without it (it may be half written)"
        )
    if not content.ended:
        # an apisix.json
        data = replace_in_values(data, top.file)
    _report_twice(content, top, report)
    return Reader(data, top, report, null_is_table=not content.json).read()


def _report_twice(content: Text, top: Place, report: Report) -> None:
    for line, key, first in content.twice:
        place = top.on_line(line)
        if report.strict:
            raise place.wrong(f"{key!r} is there twice; the first is on line {first}")
        report.remark(place, f"{key!r} is there twice; APISIX uses this one, not the one on line {first}")


def read_routes(data: Any, file: str = "routes", *, strict: bool = True) -> Routes:
    """Read routes from the values of a route file.

    Args:
        data: A mapping with the sections of an ``apisix.yaml``.
        file: A name for messages.
        strict: See `load_routes`.

    Raises:
        ConfigurationError: Something in it is wrong.

    Example:
        >>> read_routes({"routes": [{"uri": "/*", "upstream": {"nodes": {"127.0.0.1:8000": 1}}}]})
    """
    return Reader(data, Place(file), Report(strict)).read()
