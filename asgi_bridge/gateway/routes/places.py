"""Places in a route file, the values at them, and what is wrong there."""

import bisect
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from ...errors import ConfigurationError

__all__ = [
    "Finding",
    "LinedList",
    "LinedMapping",
    "LinedText",
    "Misplaced",
    "Part",
    "Place",
    "Report",
    "named",
    "replace_scalars",
    "shown",
]


class LinedMapping(dict[Any, Any]):
    """A mapping of a file that knows the line of each of its keys.

    Args:
        line: Its own first line; None: unknown.
        alias: Line of the YAML alias (``*name``) that is in place of this mapping; None: the mapping is written out.

    Attributes:
        lines: The line of each key.
        files: The file of a key, for keys that may come from another file than the mapping.
    """

    def __init__(self, line: int | None = None, alias: int | None = None) -> None:
        super().__init__()
        self.line = line
        self.alias = alias
        self.lines: dict[Any, int] = {}
        self.files: dict[Any, str] = {}

    def put(self, key: Any, value: Any, place: "Place") -> Self:
        """Set a key that comes from `place`."""
        self[key] = value
        self.files[key] = place.file
        if place.line is not None:
            self.lines[key] = place.line
        return self

    def merge(self, other: "LinedMapping") -> None:
        """Add all keys of another mapping, with their lines."""
        self.update(other)
        self.lines.update(other.lines)
        self.files.update(other.files)

    def append(self, key: str, value: Any, place: "Place") -> None:
        """Append a value that comes from `place` to the list under a key."""
        entries = self.setdefault(key, LinedList())
        entries.add(value, place.line, place.file)
        if place.line is not None:
            self.lines.setdefault(key, place.line)


class LinedList(list[Any]):
    """A list of a file that knows the line of each of its entries.

    Attributes:
        lines: The line of each entry; None: unknown.
        files: The file of an entry by its index, for entries that may come from another file than the list.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[int | None] = []
        self.files: dict[int, str] = {}

    def add(self, value: Any, line: int | None, file: str | None = None) -> None:
        """Append an entry that is on `line`, of another `file` or (None) of the list's own."""
        if file is not None:
            self.files[len(self)] = file
        self.append(value)
        self.lines.append(line)


class LinedText(str):
    """A text that takes several lines of a file, or begins on another line than its key.

    Attributes:
        lines: The lines of the file, in order.
        starts: For each of `lines` the index of the first character of this text that stands on it.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.lines: list[int] = []
        self.starts: list[int] = []

    def line_at(self, index: int) -> int | None:
        """Return the line of the character at `index`; None: unknown."""
        found = bisect.bisect_right(self.starts, index) - 1
        return self.lines[max(found, 0)] if self.lines else None


class Misplaced(ConfigurationError):
    """Something at one place of a route file is wrong.

    Args:
        place: Where.
        text: What is wrong, and what to do.
        plugin: Name of the plugin concerned; None: none is.
    """

    def __init__(self, place: "Place", text: str, plugin: str | None = None) -> None:
        super().__init__(f"{place.where}: {place.sentence(text)}")
        self.place = place
        self.text = text
        self.plugin = plugin


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the reader of a route file found at one place.

    Attributes:
        severity: ``"error"``: requests fail, or the entry is dropped. ``"warning"``: something is ignored.
            ``"note"``: nothing is wrong.
        route: Id of the route; None: it concerns no single one.
        plugin: Name of the plugin; None: it concerns none.
        where: File and line, as ``apisix.yaml:12``.
        message: What is wrong, and what to do.
        line: Line of `where`, counted from 1; None: unknown.
        field: The field of the plugin's configuration, as ``rate.per``; None: it concerns none.
        stand_in: True: it is about our stand-in for APISIX only.
    """

    severity: Literal["error", "warning", "note"]
    route: str | None
    plugin: str | None
    where: str
    message: str
    line: int | None = None
    field: str | None = None
    stand_in: bool = False

    @property
    def file(self) -> str:
        """The file of `where`; empty: unknown."""
        return self.where if self.line is None else self.where.removesuffix(f":{self.line}")

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


@dataclass(frozen=True)
class Place:
    """A place in a file, for messages.

    Attributes:
        file: Name of the file.
        what: The entry, as ``route 'x'``; empty: the file itself.
        path: The field inside the entry, as ``plugins.cors``.
        line: Counted from 1; None: unknown.
        route: Id of the route; None: the entry is no route.
    """

    file: str
    what: str = ""
    path: str = ""
    line: int | None = None
    route: str | None = None

    def at(self, container: Any, key: Any) -> "Place":
        """Return the place of a key of a mapping, or of an entry of a list, that stands here."""
        file = getattr(container, "files", {}).get(key, self.file)
        if isinstance(container, Mapping):
            line = getattr(container, "lines", {}).get(key, self.line)
            path = f"{self.path}.{key}" if self.path else str(key)
        else:
            lines = getattr(container, "lines", None)
            line = (lines[key] if lines is not None else None) or self.line
            path = f"{self.path}[{key}]"
        return Place(file, self.what, path, line, self.route)

    def on_line(self, line: int | None) -> "Place":
        """Return the same place on another line; None: on the same."""
        return self if line is None else dataclasses.replace(self, line=line)

    @property
    def where(self) -> str:
        """File and line, as ``apisix.yaml:12``."""
        return self.file if self.line is None else f"{self.file}:{self.line}"

    def sentence(self, text: str) -> str:
        """Put the entry and the field in front of a text."""
        return ": ".join(part for part in (self.what, self.path, text) if part)

    def wrong(self, text: str) -> Misplaced:
        """Make an error of this place; see `Misplaced`."""
        return Misplaced(self, text)


@dataclass(frozen=True)
class Part:
    """A value of a file together with its place."""

    value: Any
    place: Place

    def __contains__(self, key: str) -> bool:
        return isinstance(self.value, Mapping) and key in self.value

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key; `default`: there is no such key, or this is no mapping."""
        return self.value.get(key, default) if isinstance(self.value, Mapping) else default

    def at(self, key: str) -> "Part":
        """Return what stands under a key of this mapping; its value is None where there is no such key."""
        return Part(self.value.get(key), self.place.at(self.value, key))

    def mapping(self) -> "Part":
        """Return this, which has to be a mapping. Null counts as an empty one.

        Raises:
            Misplaced: It is no mapping.
        """
        if self.value is None:
            return Part({}, self.place)
        if not isinstance(self.value, Mapping):
            raise self.place.wrong(f"this has to be a mapping, not {named(self.value)}")
        return self

    def entries(self) -> Iterator["Part"]:
        """Return the entries of this, which has to be a list. Null counts as an empty one.

        Raises:
            Misplaced: It is no list.
        """
        if self.value is not None and not isinstance(self.value, list | tuple):
            raise self.place.wrong(f"this has to be a list, not {named(self.value)}")
        for number, each in enumerate(self.value or ()):
            yield Part(each, self.place.at(self.value, number))

    def copied(self, *without: str) -> LinedMapping:
        """Copy this mapping without some of its keys."""
        return self.taken({key: key for key in self.value if key not in without})

    def taken(self, names: Mapping[Any, Any]) -> LinedMapping:
        """Copy some keys of this mapping under new names: ``{"uris": "paths"}`` makes ``uris`` of ``paths``."""
        made = LinedMapping(self.place.line)
        for new, old in names.items():
            if old in self.value:
                made.put(new, self.value[old], self.at(old).place)
        return made


class Report:
    """Takes what the reader of a route file finds.

    Args:
        strict: True: raise errors, and raise what the stand-in cannot do. False: keep both as findings.
        partial: True: what a route refers to may stand elsewhere, so nothing is wrong if it is not here.

    Attributes:
        findings: In the order in which they were found, each once.
        unused: Mappings of plugins that no request of the stand-in can reach.
    """

    def __init__(self, strict: bool, *, partial: bool = False) -> None:
        self.strict = strict
        self.partial = partial
        self.findings: list[Finding] = []
        self.unused: list[Part] = []

    def wrong(self, exc: Misplaced, loss: str = "") -> None:
        """Take an error: APISIX refuses something. `loss` says what it then drops."""
        if self.strict:
            raise exc
        self._keep("error", exc.place, exc.text + loss, exc.plugin)

    def lacking(
        self,
        place: Place,
        text: str,
        remedy: str = "",
        *,
        outcome: str = "it is passed over",
        plugin: str | None = None,
        stand_in: bool = True,
    ) -> None:
        """Take something that the stand-in does not do, or not as one may think.

        Args:
            place: Where.
            text: What it is.
            remedy: What to do about it, where that is an error.
            outcome: What the stand-in or APISIX does with it, where that is a warning.
            plugin: Name of the plugin concerned; None: none is.
            stand_in: False: APISIX does not do it either.
        """
        if self.strict:
            raise place.wrong("; ".join(filter(None, (text, remedy))))
        self.remark(place, "; ".join(filter(None, (text, outcome))), plugin, stand_in=stand_in)

    def remark(self, place: Place, text: str, plugin: str | None = None, *, stand_in: bool = False) -> None:
        """Take a warning; `stand_in` as in `Finding`."""
        self._keep("warning", place, text, plugin, stand_in)

    def _keep(
        self,
        severity: Literal["error", "warning", "note"],
        place: Place,
        text: str,
        plugin: str | None,
        stand_in: bool = False,
    ) -> None:
        finding = Finding(
            severity, place.route, plugin, place.where, place.sentence(text), place.line, stand_in=stand_in
        )
        if finding not in self.findings:
            self.findings.append(finding)


def replace_scalars(
    value: Any,
    place: Place,
    scalar: Callable[[Any, Place], Any],
    key: Callable[[Any, Place], Any] = lambda name, _: name,
) -> Any:
    """Copy a value with its lines, and replace what is neither mapping nor list. A text keeps its lines if it stays.

    Args:
        value: Any value of a file.
        place: Where it stands.
        scalar: Gives the new value for each one that is neither mapping nor list.
        key: Gives the new key for each key.
    """
    if isinstance(value, Mapping):
        mapping = LinedMapping(getattr(value, "line", None), getattr(value, "alias", None))
        for name, each in value.items():
            here = place.at(value, name)
            mapping.put(key(name, here), replace_scalars(each, here, scalar, key), here)
        return mapping
    if isinstance(value, list | tuple):
        entries, files = LinedList(), getattr(value, "files", {})
        for number, each in enumerate(value):
            here = place.at(value, number)
            entries.add(replace_scalars(each, here, scalar, key), here.line, files.get(number))
        return entries
    replaced = scalar(value, place)
    return value if isinstance(value, LinedText) and replaced == value else replaced


def named(value: Any) -> str:
    """Return a value and its type for messages: ``5 (int)``, or ``nothing`` for None."""
    if value is None:
        return "nothing"
    kinds: dict[type, str] = {LinedMapping: "mapping", LinedList: "list", LinedText: "str"}
    kind = kinds.get(type(value), type(value).__name__)
    return f"{shown(value)} ({kind})"


def shown(value: Any) -> str:
    """Return at most 40 characters of a value for messages."""
    return f"{value!r:.40}"
