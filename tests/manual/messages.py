"""Every message that our loggers write, found in the source."""

import ast
import re
from functools import cache

from .blocks import ROOT

__all__ = ["lines_made_elsewhere", "log_messages", "reasons"]

PACKAGES = ("asgi_bridge", "apps")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def _text(node: ast.expr) -> str | None:
    """Return the text of an expression with `…` for what is put in; None: it is no text, or nothing of it is known."""
    match node:
        case ast.Constant(value=str(value)):
            return re.sub(r"%(?:\.\d+)?[sdrgf]", "…", value)
        case ast.JoinedStr():
            return "".join(_text(each) or "…" if isinstance(each, ast.Constant) else "…" for each in node.values)
        case ast.BinOp(op=ast.Add()):
            left, right = _text(node.left), _text(node.right)
            return None if left is None and right is None else f"{left or '…'}{right or '…'}"
    return None


def _has_words(text: str) -> bool:
    return any(letter.isalpha() for letter in text.replace("plugin …", ""))


def _is_logger(node: ast.expr) -> bool:
    return "logger" in ast.unparse(node).lower()


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """The constants at the top of a module: a message may be one."""
    return {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


@cache
def _files() -> list[tuple[str, ast.Module]]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [(str(path.relative_to(ROOT)), ast.parse(path.read_text("utf-8"))) for path in paths]


def _message_of(node: ast.Call, wrappers: dict[str, tuple[int, str]]) -> tuple[ast.expr, str] | None:
    """Return the message that a call logs, and what stands before it; None: it logs nothing."""
    if isinstance(node.func, ast.Name):
        name = f"_{node.func.id}"  # a method that was handed on: `warn`
    elif isinstance(node.func, ast.Attribute):
        name = node.func.attr
    else:
        return None
    if name in LEVELS and isinstance(node.func, ast.Attribute) and _is_logger(node.func.value):
        index, front = int(name == "log"), ""
    elif name in wrappers:
        index, front = wrappers[name]
    else:
        return None
    return (node.args[index], front) if len(node.args) > index else None


@cache
def _wrappers() -> dict[str, tuple[int, str]]:
    """Return our own methods that log a message which they are given.

    Returns:
        Name of the method → which of its arguments is the message, and what it logs before it.
    """
    found: dict[str, tuple[int, str]] = {}
    methods = [
        node
        for _, tree in _files()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.args.args and node.args.args[0].arg == "self"
    ]
    known = -1
    while known != len(found):  # a method may give its message to another one
        known = len(found)
        for method in methods:
            names = [each.arg for each in method.args.args[1:]]
            for node in ast.walk(method):
                told = _message_of(node, found) if isinstance(node, ast.Call) else None
                if told is None:
                    continue
                message, front = told
                if isinstance(message, ast.BinOp) and isinstance(message.right, ast.Name):
                    front, message = front + (_text(message.left) or ""), message.right
                if isinstance(message, ast.Name) and message.id in names:
                    found.setdefault(method.name, (names.index(message.id), front))
    return found


def log_messages() -> dict[str, str]:
    """Return the messages, each with the file and line that logs it. `…` stands for what is put in."""
    found: dict[str, str] = {}
    for file, tree in _files():
        constants = _constants(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            told = _message_of(node, _wrappers())
            if told is None:
                continue
            message, front = told
            known = constants.get(message.id, message) if isinstance(message, ast.Name) else message
            text = _text(known)
            if text is not None and _has_words(text):
                found.setdefault((front + text).replace("……", "…"), f"{file}:{node.lineno}")
    return found


def reasons() -> dict[str, str]:
    """Return the texts of PluginError: why a request was refused, behind `request refused:`."""
    found: dict[str, str] = {}
    for file, tree in _files():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "PluginError" and node.args:
                text = _text(node.args[0])
                if text is not None and _has_words(text):
                    found.setdefault(text, f"{file}:{node.lineno}")
    return found


def lines_made_elsewhere() -> set[str]:
    """Return the files that log a line which another place has made: a message without a word of its own."""
    found = set()
    for file, tree in _files():
        constants = _constants(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                message = node.args[node.func.attr == "log" :][:1]
                if not _is_logger(node.func.value) or not message:
                    continue
                (text,) = message
                known = constants.get(text.id, text) if isinstance(text, ast.Name) else text
                if not _has_words(_text(known) or ""):
                    found.add(file)
    return found
