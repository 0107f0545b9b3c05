"""The text of a route file as values: YAML or JSON, with the line on which each of them stands."""

import json
import re
from dataclasses import dataclass
from typing import Any

import yaml

from .environment import replace_in_text
from .places import LinedList, LinedMapping, LinedText, Misplaced, Place, shown

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
        Misplaced: It is neither YAML nor JSON.
        ConfigurationError: An environment variable is missing.
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
                raise Place(file, line=exc.lineno).wrong(f"this is not JSON: {exc.msg}") from None
        else:
            if bare != text:
                raise Place(file, line=1).wrong(
                    "the file begins with a byte order mark, which APISIX's reader of JSON does not accept; save it as "
                    "UTF-8 without one"
                )
            return _json(bare, value, ended)
    return _yaml(text, file, ended)


def _yaml(text: str, file: str, ended: bool) -> Text:
    text, origin = replace_in_text(text, file) if ended else (text, [])

    def wrong(line: int | None, text: str) -> Misplaced:
        if line is not None:
            line = origin[line] if line < len(origin) else line + 1
        return Place(file, line=line).wrong(text)

    try:
        loader = _Loader(text, origin)
        return Text(_documents(loader), False, ended, loader.twice)
    except yaml.MarkedYAMLError as exc:
        line = None if exc.problem_mark is None else exc.problem_mark.line
        raise wrong(line, f"this is not YAML: {exc.problem or exc.context}") from None
    except yaml.reader.ReaderError as exc:
        problem = f"this is not YAML: it may not contain the character U+{exc.character:04X}; take it out"
        raise wrong(text.count("\n", 0, exc.position), problem) from None
    except _BadKey as exc:
        raise wrong(exc.line, "a key has to be a string; put it in quotes") from None


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
        self.text = text
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
                value = self.construct_object(value_node, deep=True)
                if type(value) is str and value_node.end_mark.line > key_node.start_mark.line:
                    value = self.lined(value, value_node)
                result[key] = value
            else:
                # it comes from a merge
                result[key] = LinedMapping(alias=node.merge)
                result.lines[key] = node.merge
        return result

    def lined(self, value: str, node: Any) -> LinedText:
        """Return the text of a scalar with the lines of the file on which its characters stand."""
        text = LinedText(value)
        printed = [index for index, character in enumerate(value) if not character.isspace()]
        passed = 0
        raw = self.text[node.start_mark.index : node.end_mark.index]
        for number, count in enumerate(_printed(raw, node.style)):
            if count and passed < len(printed):
                line = node.start_mark.line + number
                text.lines.append(self.origin[line] if line < len(self.origin) else line + 1)
                text.starts.append(printed[passed])
                passed += count
        return text

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

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return json.loads(self.text[node.start_mark.index : node.end_mark.index], parse_int=_number)
        return super().construct_object(node, deep)


def _identity(pair: tuple[yaml.Node, yaml.Node]) -> Any:
    """Return what makes two keys of a mapping the same."""
    key = pair[0]
    return (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)


_SCALARS = {
    "'": re.compile(r"''|\S"),
    '"': re.compile(r"\\(?:x(?P<x>..)|u(?P<u>.{4})|U(?P<U>.{8})|[ \t\S]|\r?$)|\S"),
}
"""Maps the quotes of a scalar to what stands for one character in it. Without quotes each stands for itself."""
_BLANK_ESCAPES = frozenset("\\" + each for each in ("", *"tnvfr NLP_\t\r"))


def _printed(raw: str, style: str | None) -> list[int]:
    """Return how many of a scalar's characters stand on each of its lines, blanks aside.

    No style of YAML changes the order of the other characters, or joins them. So they are all that is needed to find
    the line of a character.

    Args:
        raw: The scalar as it is written.
        style: Its quote, ``|`` or ``>``; None: plain.
    """
    if style in ("'", '"'):
        raw = raw[1:-1]
    lines = raw.split("\n")
    if style in ("|", ">"):
        lines[0] = ""
    pattern = _SCALARS.get(style or "", re.compile(r"\S"))
    return [sum(style != '"' or not _is_blank(found) for found in pattern.finditer(line)) for line in lines]


def _is_blank(found: re.Match[str]) -> bool:
    """Return whether an escape stands for a blank."""
    code = found.lastgroup and found[found.lastgroup]
    return chr(int(code, 16)).isspace() if code else found[0] in _BLANK_ESCAPES


def _is_plain(node: yaml.Node) -> bool:
    """Return whether a node is a scalar or a list of scalars. APISIX writes into none of these."""
    if isinstance(node, yaml.SequenceNode):
        return all(isinstance(entry, yaml.ScalarNode) for entry in node.value)
    return isinstance(node, yaml.ScalarNode)
