"""The text of a route file as values: YAML or JSON, with the line on which each of them stands."""

import json
import re
from dataclasses import dataclass
from typing import Any

import yaml

from ...errors import ConfigurationError
from .environment import replace_in_text
from .places import LinedList, LinedMapping, shown

__all__ = ["END", "Text", "read_text"]

END = "#END"
"""The mark with which APISIX's YAML ends, so that no half-written file is read."""

_MERGE = "tag:yaml.org,2002:merge"
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class Text:
    """What a file holds.

    Attributes:
        documents: Its YAML documents, or the one JSON value, but for those that are null.
        json: It is JSON.
        ended: It has the mark `END`.
        twice: Keys that stand twice in a mapping: line, key, and line of the first.
    """

    documents: list[Any]
    json: bool
    ended: bool
    twice: list[tuple[int, str, int]]


def read_text(text: str, file: str) -> Text:
    """Read the text of a file.

    Environment variables in APISIX's own YAML (``${{NAME}}``) are replaced first, as APISIX does.

    Args:
        text: Of the file.
        file: Name of the file, for messages.

    Raises:
        ConfigurationError: It is neither YAML nor JSON, or an environment variable is missing.
        RecursionError: Its values are nested too deeply.
    """
    # APISIX looks for the mark in the last ten bytes of the file
    ended = re.search(rb"#END\s*\Z", text.encode("utf-8", "surrogatepass")[-10:]) is not None
    bare = text.removeprefix(_BYTE_ORDER_MARK)
    if bare.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(bare, parse_int=_number)
        except json.JSONDecodeError as exc:
            # YAML may begin with a bracket too
            if not ended:
                raise ConfigurationError(f"{file}:{exc.lineno}: this is not JSON: {exc.msg}") from None
        else:
            if bare != text:
                raise ConfigurationError(
                    f"{file}:1: the file begins with a byte order mark, which APISIX's reader of JSON does not "
                    "accept; save it as UTF-8 without one"
                )
            return _json(bare, value, ended)
    return _yaml(text, file, ended)


def _yaml(text: str, file: str, ended: bool) -> Text:
    text, origin = replace_in_text(text, file) if ended else (text, [])

    def where(line: int) -> str:
        return f"{file}:{origin[line] if line < len(origin) else line + 1}"

    try:
        loader = _Loader(text, origin)
        return Text(_documents(loader), False, ended, loader.twice)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark
        at = where(mark.line) if mark is not None else file
        raise ConfigurationError(f"{at}: this is not YAML: {exc.problem or exc.context}") from None
    except yaml.reader.ReaderError as exc:
        at = where(text.count("\n", 0, exc.position))
        raise ConfigurationError(
            f"{at}: this is not YAML: it may not contain the character U+{exc.character:04X}; take it out"
        ) from None
    except _BadKey as exc:
        raise ConfigurationError(f"{where(exc.line)}: a key has to be a string; put it in quotes") from None


def _documents(loader: "_Loader") -> list[Any]:
    found = []
    while loader.check_data():  # type: ignore[no-untyped-call]
        found.append(loader.get_data())
    return [each for each in found if each is not None]


def _json(text: str, value: Any, ended: bool) -> Text:
    """Read JSON as YAML, to learn the line of each value. Nearly all JSON is YAML, once tabs are blanks.

    Args:
        text: The JSON.
        value: The parsed JSON. It is used where `text` is no YAML; then no lines are known.
        ended: As in `Text`.
    """
    try:
        loader = _JsonLoader(text.replace("\t", " "), [])
        return Text(_documents(loader), True, ended, loader.twice)
    except yaml.YAMLError:
        return Text([value], True, ended, [])


def _number(digits: str) -> int | float:
    # as in Lua, a number that is too large is infinite
    return int(digits) if len(digits) < 400 else float(digits)


class _BadKey(Exception):
    """A key is no string. `line` is its line in the text that was read, counted from 0."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class _Loader(yaml.SafeLoader):
    """Reads YAML as lyaml does: no dates, and the last of two equal keys counts. It marks aliases of mappings.

    Args:
        text: The YAML.
        origin: For each of its lines the line of the file that it comes from; empty: it is the file's text.

    Attributes:
        twice: As `Text.twice`.
    """

    def __init__(self, text: str, origin: list[int]) -> None:
        super().__init__(text)
        self.origin = origin
        self.twice: list[tuple[int, str, int]] = []

    def line_of(self, node: Any) -> int:
        """Return the line of the file on which a node or an event stands, counted from 1."""
        line: int = node.start_mark.line
        return self.origin[line] if line < len(self.origin) else line + 1

    def compose_node(self, parent: Any, index: Any) -> Any:
        if not self.check_event(yaml.AliasEvent):
            return super().compose_node(parent, index)
        line = self.line_of(self.peek_event())  # type: ignore[no-untyped-call]
        node: Any = super().compose_node(parent, index)
        if _is_plain(node):
            return node
        copy = type(node)(node.tag, node.value, node.start_mark, node.end_mark)
        copy.alias = line
        return copy

    def compose_mapping_node(self, anchor: Any) -> Any:
        node: Any = super().compose_mapping_node(anchor)
        first: dict[str, int] = {}
        node.own = set()
        for key, value in node.value:
            line = self.line_of(key)
            if key.tag == _MERGE:
                node.merge = line
                continue
            node.own.add(id(value))
            if isinstance(key, yaml.ScalarNode):
                if key.value in first:
                    self.twice.append((line, key.value, first[key.value]))
                first.setdefault(key.value, line)
        return node

    def flatten_mapping(self, node: Any) -> None:
        # the mapping's own keys count first, then those of each merged mapping in turn
        pairs = {_identity(pair): pair for pair in node.value if pair[0].tag != _MERGE}
        for key, value in node.value:
            if key.tag == _MERGE:
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if not isinstance(source, yaml.MappingNode):
                        raise yaml.constructor.ConstructorError(None, None, "<< merges mappings only", key.start_mark)
                    self.flatten_mapping(source)
                    for pair in source.value:
                        pairs.setdefault(_identity(pair), pair)
        node.value = list(pairs.values())

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError):
            # trap: PyYAML does not catch the errors of int() and its like, as about 0x_, 5,000 digits, or !!bool maybe
            if not isinstance(node, yaml.ScalarNode):
                raise
            kind = node.tag.rpartition(":")[2]
            problem = f"{shown(node.value)} is not of type {kind}; if it is a text, put it in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def mapping(self, node: Any) -> LinedMapping:
        alias = getattr(node, "alias", None)
        result = LinedMapping(self.line_of(node), alias)
        if alias is not None:
            return result
        self.flatten_mapping(node)
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise _BadKey(key_node.start_mark.line)
            result.lines[key] = self.line_of(key_node)
            if id(value_node) in node.own or _is_plain(value_node):
                result[key] = self.construct_object(value_node, deep=True)
            else:
                # it comes from a merge
                result[key] = LinedMapping(alias=node.merge)
                result.lines[key] = node.merge
        return result

    def sequence(self, node: Any) -> Any:
        if getattr(node, "alias", None) is not None:
            return self.mapping(node)
        result = LinedList()
        for entry in node.value:
            result.add(self.construct_object(entry, deep=True), self.line_of(entry))
        return result


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _Loader.sequence)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _JsonLoader(_Loader):
    """Reads JSON, with its scalars as JSON has them: YAML takes 1e5 for a text."""

    def __init__(self, text: str, origin: list[int]) -> None:
        super().__init__(text, origin)
        self.text = text

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return json.loads(self.text[node.start_mark.index : node.end_mark.index], parse_int=_number)
        return super().construct_object(node, deep)


def _identity(pair: tuple[yaml.Node, yaml.Node]) -> Any:
    """Return what makes two keys of a mapping the same."""
    key = pair[0]
    return (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)


def _is_plain(node: yaml.Node) -> bool:
    """Return whether a node is a scalar or a list of scalars. APISIX writes into none of these."""
    if isinstance(node, yaml.SequenceNode):
        return all(isinstance(entry, yaml.ScalarNode) for entry in node.value)
    return isinstance(node, yaml.ScalarNode)
