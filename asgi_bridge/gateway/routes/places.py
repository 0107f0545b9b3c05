"""Where in a route file something stands, and what is to be said about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...errors import ConfigurationError

__all__ = ["Finding", "LinedList", "LinedMapping", "Misplaced", "Place", "Report", "named", "shown"]


class LinedMapping(dict[Any, Any]):
    """A mapping of a file that knows on which line each of its keys stands.

    Attributes:
        line: its own first line; None: unknown.
        lines: the line of each key.
        alias: the line of the alias (``*name``) that it came by; None: it stands here itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.line: int | None = None
        self.lines: dict[Any, int] = {}
        self.alias: int | None = None


class LinedList(list[Any]):
    """A list of a file that knows on which line each of its entries stands; None: unknown."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[int | None] = []


class Misplaced(ConfigurationError):
    """Something at one place of a route file is wrong.

    Args:
        place: where.
        text: what is wrong, and what to do.
        plugin: name of the plugin that it concerns; None: none.
    """

    def __init__(self, place: "Place", text: str, plugin: str | None = None) -> None:
        super().__init__(f"{place.where}: {place.sentence(text)}")
        self.place = place
        self.text = text
        self.plugin = plugin


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a route file has, and that a reader of the routes wants to know.

    Attributes:
        severity: ``"error"``: requests fail, or the entry is not there. ``"warning"``: something is passed over.
        route: id of the route; None: it concerns no single one.
        plugin: name of the plugin; None: it concerns none.
        where: file and line, as ``apisix.yaml:12``.
        message: what is wrong, and what to do.
    """

    severity: Literal["error", "warning"]
    route: str | None
    plugin: str | None
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


@dataclass(frozen=True)
class Place:
    """A place in a file: for messages.

    Attributes:
        file: the file's name.
        what: the entry, as ``route 'x'``; empty: the file itself.
        path: the field inside the entry, as ``plugins.cors``.
        line: counted from 1; None: unknown.
        route: id of the route; None: it is no route.
    """

    file: str
    what: str = ""
    path: str = ""
    line: int | None = None
    route: str | None = None

    def at(self, container: Any, key: Any) -> "Place":
        """The place of one key of a mapping, or of one entry of a list."""
        if isinstance(container, Mapping):
            line = getattr(container, "lines", {}).get(key, self.line)
            path = f"{self.path}.{key}" if self.path else str(key)
        else:
            lines = getattr(container, "lines", None)
            line = (lines[key] if lines is not None else None) or self.line
            path = f"{self.path}[{key}]"
        return Place(self.file, self.what, path, line, self.route)

    @property
    def where(self) -> str:
        """File and line."""
        return self.file if self.line is None else f"{self.file}:{self.line}"

    def sentence(self, text: str) -> str:
        """A text with the entry and the field in front of it."""
        return ": ".join(part for part in (self.what, self.path, text) if part)

    def wrong(self, text: str) -> Misplaced:
        """An error at this place."""
        return Misplaced(self, text)

    def finding(self, severity: Literal["error", "warning"], text: str, plugin: str | None = None) -> Finding:
        """A finding at this place."""
        return Finding(severity, self.route, plugin, self.where, self.sentence(text))


class Report:
    """What a reader of routes has to say.

    Args:
        strict: True: what is wrong, and what the stand-in cannot do, is raised. False: it is kept as a finding.

    Attributes:
        findings: what was found, in the order of the file.
    """

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.findings: list[Finding] = []

    def wrong(self, exc: Misplaced, loss: str = "") -> None:
        """APISIX refuses something; `loss` says what it drops."""
        if self.strict:
            raise exc
        self._keep(exc.place.finding("error", exc.text + loss, exc.plugin))

    def lacking(self, place: Place, text: str, remedy: str = "", plugin: str | None = None) -> None:
        """The stand-in cannot do something that APISIX can. `remedy` is what to do, where that is an error."""
        strict = f"{text}; {remedy}" if remedy else text
        self.doubtful(place, strict, f"{text}; it is passed over", plugin)

    def doubtful(self, place: Place, strict: str, lenient: str, plugin: str | None = None) -> None:
        """Something is an error for a test, and has to be said otherwise: two texts."""
        if self.strict:
            raise place.wrong(strict)
        self._keep(place.finding("warning", lenient, plugin))

    def remark(self, place: Place, text: str, plugin: str | None = None) -> None:
        """Something is worth knowing."""
        self._keep(place.finding("warning", text, plugin))

    def _keep(self, finding: Finding) -> None:
        if finding not in self.findings:
            self.findings.append(finding)


def named(value: Any) -> str:
    """A value and its type, for messages: ``5 (int)``, or ``nothing``."""
    if value is None:
        return "nothing"
    kind = {LinedMapping: "mapping", LinedList: "list"}.get(type(value), type(value).__name__)
    return f"{shown(value)} ({kind})"


def shown(value: Any) -> str:
    """A value for messages, at most 40 characters of it."""
    return f"{value!r:.40}"
