"""YAML for APISIX: readable, and the same text to each reader of YAML."""

import re
from typing import Any

import yaml

__all__ = ["flow", "yaml_of"]

_is_plain = re.compile(r"[A-Za-z_/][A-Za-z0-9_/.:*-]*[A-Za-z0-9_/*]|[A-Za-z_/]").fullmatch
"""Texts that may stand without quotes. Readers of YAML differ in what else is a number; lyaml takes 1e5 for one."""


class _Dumper(yaml.SafeDumper):
    """Writes lists indented, and quotes all but plain words."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        # APISIX drops routes that share a table
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    plain = _is_plain(value) and value.lower() not in ("inf", "infinity", "nan", "y", "n")
    style = "|" if "\n" in value else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, None if plain else style)


_Dumper.add_representer(str, _text)


def yaml_of(value: Any) -> str:
    """Return a value as YAML in block style.

    Args:
        value: Dicts, lists, texts, numbers and booleans. The keys of a dict keep their order.

    Example::

        yaml_of({"conf": [{"name": "say", "value": "{}"}]})  # "conf:\\n  - name: say\\n    value: '{}'\\n"
    """
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000, default_flow_style=False)


def flow(value: Any) -> str:
    """Return a list or a text as YAML on one line, to be put into a larger text."""
    text = yaml.dump(value, Dumper=_Dumper, allow_unicode=True, width=10_000, default_flow_style=True)
    return text.removesuffix("\n").removesuffix("\n...")
