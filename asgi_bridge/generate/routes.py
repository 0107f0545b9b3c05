"""One route in each form in which people keep APISIX's routes."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigurationError
from .yaml_text import yaml_of

__all__ = ["Route", "adc", "admin_json", "plugin_config", "standalone", "upstream_of"]

_is_node = re.compile(r"(?:(https?)://)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})/?").fullmatch


def upstream_of(addresses: Sequence[str]) -> dict[str, Any]:
    """Return APISIX's upstream with some servers.

    Args:
        addresses: ``host:port``, or with ``http://`` or ``https://`` before it. They get equal shares.

    Raises:
        ConfigurationError: An address is of another form, or their schemes differ.
    """
    found = [(address, _is_node(address)) for address in addresses]
    for address, match in found:
        if match is None or not 0 < int(match[3]) < 65536:
            raise ConfigurationError(f"--upstream {address}: an upstream is like shop:8000 or https://shop:443")
    schemes = {match[1] or "http" for _, match in found if match}
    if len(schemes) > 1:
        raise ConfigurationError("--upstream: all servers of a route are http, or all are https")
    nodes = [{"host": match[2], "port": int(match[3]), "weight": 1} for _, match in found if match]
    scheme = schemes.pop()
    return {"type": "roundrobin", **({} if scheme == "http" else {"scheme": scheme}), "nodes": nodes}


@dataclass(frozen=True, slots=True)
class Route:
    """What a route says, whatever the form.

    Attributes:
        name: Its name, and its id.
        uris: Paths, or patterns with ``*``.
        hosts: Host names; empty: any.
        plugins: Its ``ext-plugin-*`` (`lists.ext_plugins`).
        upstream: Where its requests go (`upstream_of`).
    """

    name: str
    uris: tuple[str, ...]
    hosts: tuple[str, ...]
    plugins: Mapping[str, Mapping[str, Any]]
    upstream: Mapping[str, Any]

    def of_apisix(self) -> dict[str, Any]:
        """Return the route as APISIX's own object."""
        made: dict[str, Any] = {"id": self.name}
        made |= {"uri": self.uris[0]} if len(self.uris) == 1 else {"uris": list(self.uris)}
        made |= {"hosts": list(self.hosts)} if self.hosts else {}
        return made | {"plugins": dict(self.plugins), "upstream": dict(self.upstream)}


def admin_json(route: Route) -> str:
    """Return the JSON for ``PUT /apisix/admin/routes/ID`` of the Admin API."""
    return json.dumps(route.of_apisix(), indent=2, ensure_ascii=False) + "\n"


def standalone(route: Route) -> str:
    """Return an ``apisix.yaml``, which APISIX reads in its standalone mode."""
    text = yaml_of({"routes": [route.of_apisix()]})
    head = "# APISIX's routes in standalone mode: conf/apisix.yaml. The last line has to be #END."
    return f"{head}\n{text}#END\n"


def adc(route: Route) -> str:
    """Return the file for ``adc sync``."""
    own: dict[str, Any] = {"name": route.name, "uris": list(route.uris)}
    own |= {"hosts": list(route.hosts)} if route.hosts else {}
    own["plugins"] = dict(route.plugins)
    text = yaml_of({"services": [{"name": route.name, "upstream": dict(route.upstream), "routes": [own]}]})
    return f"# APISIX's routes for ADC: adc sync -f FILE\n{text}"


def plugin_config(name: str, ingress_class: str, plugins: Mapping[str, Mapping[str, Any]]) -> str:
    """Return an ``ApisixPluginConfig``, for the ingress controller of Kubernetes.

    Args:
        name: Of the resource.
        ingress_class: The class of the controller that reads it.
        plugins: See `Route`.
    """
    listed = [{"name": place, "enable": True, "config": dict(config)} for place, config in plugins.items()]
    resource = {
        "apiVersion": "apisix.apache.org/v2",
        "kind": "ApisixPluginConfig",
        "metadata": {"name": name},
        "spec": {"ingressClassName": ingress_class, "plugins": listed},
    }
    text = yaml_of(resource)
    return f"# The plugins of routes in Kubernetes. A rule of an ApisixRoute names it: plugin_config_name.\n{text}"
