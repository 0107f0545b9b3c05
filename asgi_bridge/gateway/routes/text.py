"""The text of a route file: environment variables, YAML or JSON, and on which line everything stands."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ...errors import ConfigurationError
from .places import LinedList, LinedMapping, shown

__all__ = ["ALIAS", "END", "Text", "read_text", "replace_in_values", "replace_variables"]

END = "#END"

# what var_sub of apisix/cli/file.lua takes for a variable: a name, then anything; the shortest match
_VARIABLE = re.compile(r"\$\{\{[ \t\n\v\f\r]*([A-Za-z0-9_]+[:=]?.*?)[ \t\n\v\f\r]*\}\}", re.DOTALL)
_MERGE = "tag:yaml.org,2002:merge"
_BYTE_ORDER_MARK = "\ufeff"
ALIAS = (
    "an alias puts a mapping here that stands elsewhere already. APISIX then has one table for both places, writes "
    "into it, and drops the routes after the first; write it out, or refer to it (upstream_id, plugin_config_id, "
    "service_id)"
)
"""What is to be said of a mapping that stands at two places."""


@dataclass(frozen=True)
class Text:
    """What a file holds.

    Attributes:
        documents: its YAML documents, or the one JSON value.
        json: it is JSON.
        ended: it has APISIX's mark that the file is whole.
        twice: keys that stand twice in a mapping: line, key, and the line of the first.
    """

    documents: list[Any]
    json: bool
    ended: bool
    twice: list[tuple[int, str, int]]


def read_text(text: str, file: str) -> Text:
    """Read a file's text.

    ``${{NAME}}`` and ``${{NAME:=default}}`` are replaced where APISIX does it: in the text of its own YAML, before
    that is read.

    Raises:
        ConfigurationError: it is neither YAML nor JSON, or an environment variable is missing.
    """
    # APISIX looks for the mark in the last ten bytes of the file
    ended = re.search(rb"#END\s*\Z", text.encode("utf-8", "surrogatepass")[-10:]) is not None
    fault: json.JSONDecodeError | None = None
    marked = text.startswith(_BYTE_ORDER_MARK)
    try:
        if text.removeprefix(_BYTE_ORDER_MARK).lstrip()[:1] in ("{", "["):
            try:
                return _json(text.removeprefix(_BYTE_ORDER_MARK), file, ended, marked)
            except json.JSONDecodeError as exc:
                fault = exc
        if fault is not None and not ended:
            raise ConfigurationError(f"{file}:{fault.lineno}: this is no JSON: {fault.msg}")
        origin: list[int] | None = None
        if ended:
            text, origin = replace_variables(text, file)
        try:
            loader = _Loader(text)
            documents = list(_documents(loader))
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark
            where = f"{file}:{_line(origin, mark.line)}" if mark is not None else file
            raise ConfigurationError(f"{where}: this is no YAML: {exc.problem or exc.context}") from None
        except yaml.reader.ReaderError as exc:
            line = _line(origin, text.count("\n", 0, exc.position))
            raise ConfigurationError(
                f"{file}:{line}: this is no YAML: the character U+{exc.character:04X} may not stand in it; take it out"
            ) from None
        except _BadKey as exc:
            line = _line(origin, exc.line)
            raise ConfigurationError(f"{file}:{line}: a key has to be a string; put it in quotes") from None
        if origin is not None and origin != list(range(1, len(origin) + 1)):
            for document in documents:
                _relocate(document, origin)
        twice = [(_line(origin, line), key, _line(origin, first)) for line, key, first in loader.twice]
        return Text(documents, False, ended, twice)
    except RecursionError:
        raise ConfigurationError(f"{file}: lists and mappings stand too deep inside each other") from None


def _line(origin: list[int] | None, line: int) -> int:
    """The line of the file, counted from 1, for a line of the text that was read, counted from 0."""
    return line + 1 if origin is None or line >= len(origin) else origin[line]


# --- environment variables ------------------------------------------------------------------------------------------


def replace_variables(text: str, file: str) -> tuple[str, list[int]]:
    """Put environment variables into the text of a route file.

    Returns:
        The new text, and for each of its lines the line of the file that it comes from.

    Raises:
        ConfigurationError: a variable is not set and has no default; it names all of these, with their lines.
    """
    parts: list[str] = []
    origin = [1]
    missing: list[str] = []
    line, end = 1, 0
    for match in _VARIABLE.finditer(text):
        before = text[end : match.start()]
        parts.append(before)
        origin += range(line + 1, line + 1 + before.count("\n"))
        line += before.count("\n")
        name, value = _value(match)
        if value is None:
            missing.append(f"{file}:{line}: {_missing(name)}")
            value = ""
        parts.append(value)
        origin += [line] * value.count("\n")
        line += match[0].count("\n")
        end = match.end()
    parts.append(text[end:])
    origin += range(line + 1, line + 1 + text[end:].count("\n"))
    if missing:
        raise ConfigurationError("\n".join(missing))
    return "".join(parts), origin


def _value(match: re.Match[str]) -> tuple[str, str | None]:
    # trap: a blank before := belongs to the name, so that variable is never found and the default counts
    name, found, default = match[1].partition(":=")
    return name, os.environ.get(name, default.strip(" \t\n\v\f\r") if found else None)


def _missing(name: str) -> str:
    if not re.fullmatch(r"\w+", name):
        wanted = "a variable is written ${{NAME}} or ${{NAME:=default}}"
        return f"there is no environment variable {shown(name)}; {wanted}"
    return (
        f"the environment variable {name} is not set; APISIX then does not read the file. Set it, or give a default: "
        f"${{{{{name}:=default}}}}"
    )


def replace_in_values(value: Any, file: str) -> Any:
    """Put environment variables into the keys and values of a file in JSON, where APISIX does it after reading.

    A value with a variable in it that then looks like a number, true or false becomes one.

    Raises:
        ConfigurationError: a variable is not set and has no default.
    """
    missing: list[str] = []

    def text(given: str, line: int | None, *, key: bool = False) -> Any:
        def one(match: re.Match[str]) -> str:
            name, found = _value(match)
            if found is None:
                missing.append(f"{file}{'' if line is None else f':{line}'}: {_missing(name)}")
            return found or ""

        result, times = _VARIABLE.subn(one, given)
        if not times or key:
            return result
        if result in ("true", "false"):
            return result == "true"
        try:
            number = float(result)
        except ValueError:
            return result
        return int(number) if number.is_integer() else number

    def walk(each: Any, line: int | None) -> Any:
        if isinstance(each, str):
            return text(each, line)
        if isinstance(each, LinedList):
            copied = LinedList()
            copied.lines = each.lines
            copied += [walk(entry, own) for entry, own in zip(each, each.lines, strict=True)]
            return copied
        if isinstance(each, LinedMapping):
            mapping = LinedMapping()
            mapping.line = each.line
            for key, entry in each.items():
                own = each.lines.get(key)
                new = text(key, own, key=True)
                mapping[new] = walk(entry, own)
                if own is not None:
                    mapping.lines[new] = own
            return mapping
        return each

    result = walk(value, None)
    if missing:
        raise ConfigurationError("\n".join(missing))
    return result


# --- YAML -----------------------------------------------------------------------------------------------------------


class _BadKey(Exception):
    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class _Loader(yaml.SafeLoader):
    """YAML as lyaml reads it: no dates, the last of two equal keys counts, and aliases of mappings are seen."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.twice: list[tuple[int, str, int]] = []

    def compose_node(self, parent: Any, index: Any) -> Any:
        if not self.check_event(yaml.AliasEvent):
            return super().compose_node(parent, index)
        line = self.peek_event().start_mark.line  # type: ignore[no-untyped-call]
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
            line = key.start_mark.line
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
        # of several mappings that are merged the first with a key counts, and the mapping's own keys before all
        pairs = {_named(pair): pair for pair in node.value if pair[0].tag != _MERGE}
        for key, value in node.value:
            if key.tag == _MERGE:
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if not isinstance(source, yaml.MappingNode):
                        raise yaml.constructor.ConstructorError(None, None, "<< merges mappings only", key.start_mark)
                    self.flatten_mapping(source)
                    for pair in source.value:
                        pairs.setdefault(_named(pair), pair)
        node.value = list(pairs.values())

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError):
            # trap: PyYAML lets pass what int() and its like say of 0x_, of 5,000 digits, or of !!bool maybe
            if not isinstance(node, yaml.ScalarNode):
                raise
            kind = node.tag.rpartition(":")[2]
            problem = f"{shown(node.value)} is no {kind}; if it is a text, put it in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def mapping(self, node: Any) -> LinedMapping:
        result = LinedMapping()
        result.line = node.start_mark.line + 1
        alias = getattr(node, "alias", None)
        if alias is not None:
            result.alias = alias + 1
            return result
        self.flatten_mapping(node)
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise _BadKey(line)
            if id(value_node) in node.own or _is_plain(value_node):
                result[key] = self.construct_object(value_node, deep=True)
            else:
                # a merge has brought it
                line = node.merge
                result[key] = LinedMapping()
                result[key].alias = line + 1
            result.lines[key] = line + 1
        return result

    def sequence(self, node: Any) -> Any:
        if getattr(node, "alias", None) is not None:
            return self.mapping(node)
        result = LinedList()
        for entry in node.value:
            result.append(self.construct_object(entry, deep=True))
            result.lines.append(entry.start_mark.line + 1)
        return result


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _Loader.sequence)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _named(pair: tuple[yaml.Node, yaml.Node]) -> Any:
    """What makes two keys of a mapping the same."""
    key = pair[0]
    return (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)


def _is_plain(node: yaml.Node) -> bool:
    """A scalar, or a list of scalars: nothing of these is written into by APISIX."""
    if isinstance(node, yaml.SequenceNode):
        return all(isinstance(entry, yaml.ScalarNode) for entry in node.value)
    return isinstance(node, yaml.ScalarNode)


def _documents(loader: _Loader) -> Iterator[Any]:
    try:
        while loader.check_data():  # type: ignore[no-untyped-call]
            yield loader.get_data()
    finally:
        loader.dispose()


def _relocate(value: Any, origin: list[int]) -> None:
    """Lines of the file in place of those of the text with the variables in it."""
    if isinstance(value, LinedMapping):
        value.line = None if value.line is None else _line(origin, value.line - 1)
        value.alias = None if value.alias is None else _line(origin, value.alias - 1)
        value.lines = {key: _line(origin, line - 1) for key, line in value.lines.items()}
        for entry in value.values():
            _relocate(entry, origin)
    elif isinstance(value, LinedList):
        value.lines = [None if line is None else _line(origin, line - 1) for line in value.lines]
        for entry in value:
            _relocate(entry, origin)


# --- JSON -----------------------------------------------------------------------------------------------------------


def _json(text: str, file: str, ended: bool, marked: bool) -> Text:
    """JSON values, with the lines on which they stand where these can be found.

    Raises:
        json.JSONDecodeError: it is no JSON.
        ConfigurationError: it is JSON that APISIX's reader does not take.
    """
    value = json.loads(text, parse_int=_number)
    if marked:
        raise ConfigurationError(
            f"{file}:1: the file begins with a byte order mark, which APISIX's reader of JSON does not take; save it "
            "as UTF-8 without one"
        )
    try:
        # JSON is YAML, but for tabs between the tokens
        node: Any = yaml.compose(text.replace("\t", " "), yaml.SafeLoader)
    except yaml.YAMLError:
        node = None
    twice: list[tuple[int, str, int]] = []
    return Text([_placed(value, node, twice)], True, ended, twice)


def _number(digits: str) -> int | float:
    # as in Lua, one that is too large is infinite
    return int(digits) if len(digits) < 400 else float(digits)


def _placed(value: Any, node: Any, twice: list[tuple[int, str, int]]) -> Any:
    if isinstance(value, Mapping):
        mapping = LinedMapping()
        mapping.line = None if node is None else node.start_mark.line + 1
        nodes: dict[str, tuple[Any, Any]] = {}
        for key_node, value_node in () if node is None else node.value:
            if key_node.value in nodes:
                first = nodes[key_node.value][0].start_mark.line + 1
                twice.append((key_node.start_mark.line + 1, key_node.value, first))
            nodes[key_node.value] = key_node, value_node
        for key, each in value.items():
            key_node, value_node = nodes.get(key, (None, None))
            mapping[key] = _placed(each, value_node, twice)
            if key_node is not None:
                mapping.lines[key] = key_node.start_mark.line + 1
        return mapping
    if isinstance(value, list):
        entries = LinedList()
        nodes_of_entries = [None] * len(value) if node is None else node.value
        for each, each_node in zip(value, nodes_of_entries, strict=True):
            entries.append(_placed(each, each_node, twice))
            entries.lines.append(None if each_node is None else each_node.start_mark.line + 1)
        return entries
    return value
