"""Reads the plugins of a route, a service, a consumer, or a global rule."""

import json
import os
import re
from typing import TYPE_CHECKING, Any

from ...spelling import did_you_mean
from ..builtin import BUILTIN, Unsupported, check_builtin
from ..nginx.uri import raw
from . import schema
from .checking import checked
from .expressions import Expression, parse_expression
from .places import Misplaced, Part, Place, Report, replace_scalars, shown
from .plugin_names import PLUGINS
from .route import PHASES, ExtPlugin, Plugins

if TYPE_CHECKING:
    from ...wire.messages import TextEntry

__all__ = ["PluginReader", "resolved"]

_FIELDS = {"_meta", "allow_degradation", "conf", "disable"}
"""Fields that an external plugin may have in a route."""
_REFERENCE = re.compile(r"\$env://([^/]+)(?:/(.+))?", re.IGNORECASE)


class PluginReader:
    """Reads the plugins of one file.

    Args:
        report: Takes what is found.
        null_is_table: Null is an empty table in Lua, as APISIX's reader of YAML has it. Its reader of JSON makes nil.
    """

    def __init__(self, report: Report, *, null_is_table: bool) -> None:
        self._report = report
        self._null_is_table = null_is_table
        self._absent: dict[str, list[Place]] = {}

    def read(self, part: Part) -> Plugins:
        """Read a mapping of names to configurations.

        Raises:
            Misplaced: APISIX refuses a plugin, or (when strict) the stand-in does not have it.
        """
        plugins = Plugins({}, {}, frozenset(), {})
        for name in part.mapping().value:
            here = part.at(name)
            try:
                plugins = self._one(str(name), here).over(plugins)
            except Misplaced as exc:
                raise Misplaced(exc.place, exc.text, str(name)) from None
            except Unsupported as exc:
                self._report.lacking(here.place, str(exc), plugin=name)
            except ValueError as exc:
                raise Misplaced(here.place, str(exc), name) from None
        return plugins

    def expression(self, part: Part) -> Expression | None:
        """Read an expression over variables; None: there is none, or only PCRE understands it.

        Raises:
            Misplaced: It is no expression.
        """
        if part.value is None:
            return None
        rule = replace_scalars(
            part.value, part.place, lambda value, _: {} if value is None and self._null_is_table else value
        )
        try:
            return parse_expression(rule)
        except NotImplementedError as exc:
            self._report.lacking(part.place, str(exc))
            return None
        except ValueError as exc:
            raise part.place.wrong(str(exc)) from None

    def report_absent(self) -> None:
        """Report each plugin that the stand-in does not have once, with all its lines."""
        for name, places in self._absent.items():
            lines = [str(place.line) for place in places[1:9] if place.line is not None]
            also = f" (here and on line {', '.join(lines)})" if lines else ""
            self._report.lacking(places[0], _absence(name) + also, plugin=name, stand_in=name in PLUGINS)

    def _one(self, name: str, part: Part) -> Plugins:
        part = part.mapping()
        meta = part.at("_meta").mapping()
        if name not in PHASES and name not in BUILTIN:
            self._other(name, meta, part.place)
            return Plugins()
        if meta.get("disable") is True:
            # APISIX reads its filter, and nothing else of it (plugin.lua, 3.18)
            if isinstance(meta.get("filter"), list):
                self.expression(meta.at("filter"))
            return Plugins(disabled=frozenset({name}))
        checked(schema.Meta, meta)
        if "pre_function" in meta:
            self._report.lacking(meta.at("pre_function").place, "the stand-in runs no Lua", "take it out")
        if part.get("disable") is True:
            self._report.remark(
                part.at("disable").place,
                "disable: true does nothing, and the plugin runs; what switches it off is _meta: {disable: true}",
                name,
            )
        conf = resolved(part, self._report)
        if name in PHASES:
            self._unknown_fields(name, part)
            found = Plugins({name: _ext_plugin(conf)})
        else:
            check_builtin(name, conf.value)
            found = Plugins(builtin={name: conf.value})
        expression = self.expression(meta.at("filter"))
        return found if expression is None else Plugins(found.ext, found.builtin, filters={name: expression})

    def _unknown_fields(self, name: str, part: Part) -> None:
        """Report fields of an external plugin that APISIX passes over. Without its ``conf`` it runs no plugin."""
        for field in {*part.value} - _FIELDS:
            text = "APISIX does not know this field, and passes it over"
            self._report.remark(part.at(field).place, f"{text}{did_you_mean(str(field), _FIELDS)}", name)

    def _other(self, name: str, meta: Part, place: Place) -> None:
        """Report a plugin that the stand-in does not have."""
        hint = did_you_mean(name, PHASES if name.startswith("ext") else PLUGINS, 0.75)
        if name not in PLUGINS and (name.startswith("ext-plugin") or any(phase in hint for phase in PHASES)):
            there = hint or f"; there are {', '.join(PHASES)}"
            raise place.wrong(f"APISIX has no plugin of this name{there}")
        if self._report.strict:
            raise place.wrong(
                f"{_absence(name)}; take it out for the stand-in, or try the route on a real APISIX. "
                f"It has {', '.join((*PHASES, *sorted(BUILTIN)))}"
            )
        if meta.get("disable") is not True:
            self._absent.setdefault(name, []).append(place)


def _absence(name: str) -> str:
    if name in PLUGINS:
        return "the stand-in does not have this plugin of APISIX"
    return (
        "neither the stand-in nor APISIX 3.18 has this plugin: unless your gateway has one of its own of this name, it "
        f"drops the route{did_you_mean(name, PLUGINS, 0.75)}"
    )


def _ext_plugin(part: Part) -> ExtPlugin:
    conf = checked(schema.ExtPlugin, part)
    meta = part.at("_meta").mapping()
    listed: list[TextEntry] = [(raw(each.name), raw(each.value)) for each in conf.conf or ()]
    return ExtPlugin(
        listed or None,
        conf.allow_degradation,
        meta.get("priority"),
        meta.get("error_response"),
        part.place.where,
        tuple(part.at("conf").entries()),
    )


def resolved(part: Part, report: Report) -> Part:
    """Return a configuration with the values of ``$env://NAME``. APISIX puts them in when a request comes.

    Args:
        part: The configuration.
        report: Takes a warning about each reference that leads nowhere.
    """

    def scalar(value: Any, place: Place) -> Any:
        if not schema.is_reference(value):
            return value
        match = _REFERENCE.fullmatch(value)
        if match is None:
            text = f"the stand-in reaches no secret manager: {shown(value)} stays as it is"
            report.remark(place, text, stand_in=True)
            return value
        found: Any = os.environ.get(match[1])
        if found is not None and match[2] is not None:
            try:
                found = json.loads(found).get(match[2])
            except (ValueError, AttributeError):
                found = None
        if found is None:
            report.remark(
                place, f"there is no environment variable {match[1]}: APISIX uses the text {shown(value)} itself"
            )
            return value
        return found

    return Part(replace_scalars(part.value, part.place, scalar), part.place)
