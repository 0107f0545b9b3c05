"""Every message that our loggers write, found in the source."""

import ast
import re
from functools import cache

from .blocks import ROOT

__all__ = ["lines_made_elsewhere", "log_messages", "reasons"]

PACKAGES = ("asgi_bridge", "apps")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
WRAPPERS = {"_log_error", "warn_once", "_warn"}
"""Our own functions that log the message that they are given, behind the plugin's name."""


def _text(node: ast.expr) -> str | None:
    """Return the text of an expression with `…` for what is put in; None: it is no text, or nothing of it is known."""
    match node:
        case ast.Constant(value=str(value)):
            return re.sub(r"%(?:\.\d)?[sdrgf]", "…", value)
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


def log_messages() -> dict[str, str]:
    """Return the messages, each with the file and line that logs it. `…` stands for what is put in."""
    found: dict[str, str] = {}
    for file, tree in _files():
        constants = _constants(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            name = node.func.attr
            if name in LEVELS and _is_logger(node.func.value):
                arguments, front = node.args[name == "log" :][:1], ""
            elif name in WRAPPERS:
                arguments, front = node.args[1:2], "plugin …: "
            else:
                continue
            for each in arguments:
                known = constants.get(each.id, each) if isinstance(each, ast.Name) else each
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
