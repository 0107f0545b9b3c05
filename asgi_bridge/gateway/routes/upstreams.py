"""Reads the upstreams of a route file, and the certificates that the gateway sends to them."""

from collections.abc import Mapping
from typing import Any, TypeVar

from ..upstream.tls import client_context
from . import schema
from .places import Part, Place, Report
from .plugins import resolved
from .route import Node, Upstream

__all__ = ["CLUSTER", "UpstreamReader", "referred"]

CLUSTER = "127.0.0.1:1980"
"""Host and port for requests whose upstream only a cluster or a service registry knows: the upstream that
``asgi-bridge dev`` starts."""

_WITHOUT_EFFECT = ("checks", "retries", "retry_timeout", "keepalive_pool")

T = TypeVar("T")


def referred(holder: Part, key: str, among: Mapping[str, T], report: Report) -> T | None:
    """Return what a field refers to; None: there is no such field, or (in a partial file) it is elsewhere.

    Args:
        holder: What has the field.
        key: The field, as ``service_id``.
        among: What it may refer to, by id.
        report: Takes a warning about plugins that are elsewhere.

    Raises:
        Misplaced: Nothing has this id.
    """
    if key not in holder:
        return None
    wanted = str(holder.value[key])
    if wanted not in among and report.partial:
        if key in ("plugin_config_id", "service_id"):
            kind = key.removesuffix("_id")
            text = f"no {kind} {wanted!r} could be read from the given files, so its plugins are not checked; give"
            report.remark(holder.at(key).place, f"{text} what the Admin API has under {kind}s as well")
        return None
    if wanted not in among:
        known = ", ".join(sorted(among)) or "none"
        raise holder.at(key).place.wrong(f"there is no {key.removesuffix('_id')} {wanted!r}; there are: {known}")
    return among[wanted]


class UpstreamReader:
    """Reads the upstreams of one file.

    Args:
        report: Takes what is found.

    Attributes:
        certificates: Certificate and key of each entry of ``ssls`` that upstreams may refer to, by id.
        upstreams: The entries of ``upstreams``, by id.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self.certificates: dict[str, tuple[str, str]] = {}
        self.upstreams: dict[str, Upstream] = {}

    def of(self, holder: Part, own: schema.Upstream | None) -> Upstream | None:
        """Read the upstream of a route or a service; None: it has none.

        Args:
            holder: The route or service, with fields ``upstream`` and ``upstream_id``.
            own: Its ``upstream``, as it was checked.
        """
        upstream = None
        if own is not None:
            if "upstream_id" in holder:
                text, place = "it has an upstream as well", holder.at("upstream_id").place
                self._report.lacking(place, text, "keep one of them", outcome="APISIX takes this one", stand_in=False)
            upstream = self.read(holder.at("upstream"), own)
        return referred(holder, "upstream_id", self.upstreams, self._report) or upstream

    def read(self, part: Part, upstream: schema.Upstream) -> Upstream:
        """Read one upstream.

        Args:
            part: The upstream as it stands in the file.
            upstream: The same, as it was checked.

        Raises:
            Misplaced: It has no node or no usable certificate.
        """
        part = part.mapping()
        idle = [field for field in _WITHOUT_EFFECT if field in part]
        if upstream.type != "roundrobin":
            idle.append("type")
        if idle:
            self._report.remark(
                part.at(idle[0]).place,
                "the stand-in asks only the node with the greatest weight, once, and checks no health: "
                f"{', '.join(idle)} {'is' if len(idle) == 1 else 'are'} passed over",
                stand_in=True,
            )
        scheme = upstream.scheme
        if scheme not in ("http", "https"):
            text = f"the stand-in speaks http and https, not {scheme!r}"
            self._report.lacking(part.at("scheme").place, text, outcome="requests get 503")
            return Upstream()
        nodes = self._nodes(part, upstream, 443 if scheme == "https" else 80)
        certificate, key = self._certificate(part.at("tls"), upstream.tls)
        timeout: Mapping[str, Any] = upstream.timeout or {}
        return Upstream(
            nodes,
            scheme,
            upstream.pass_host,
            upstream.upstream_host,
            client_cert=certificate,
            client_key=key,
            **timeout,
        )

    def pair(self, certificate: str, key: str, place: Place) -> tuple[str, str]:
        """Return a certificate and its key, in PEM.

        Raises:
            Misplaced: They cannot be used.
        """
        found: list[str] = [resolved(Part(text, place), self._report).value for text in (certificate, key)]
        try:
            client_context(found[0], found[1])
        except (OSError, ValueError) as exc:
            raise place.wrong(f"certificate and key cannot be used: {exc}") from None
        return found[0], found[1]

    def _certificate(self, part: Part, tls: schema.Tls | None) -> tuple[str, str]:
        if tls is None:
            return "", ""
        if tls.verify:
            self._report.remark(
                part.at("verify").place, "APISIX verifies certificates of kafka only; verify does nothing"
            )
        if tls.client_cert is not None and tls.client_key is not None:
            return self.pair(tls.client_cert, tls.client_key, part.place)
        return referred(part.mapping(), "client_cert_id", self.certificates, self._report) or ("", "")

    def _nodes(self, part: Part, upstream: schema.Upstream, default_port: int) -> tuple[Node, ...]:
        here = part.at("nodes")
        found: list[Node] = []
        if upstream.nodes is None:
            if upstream.service_name is None or upstream.discovery_type is None:
                raise part.place.wrong(
                    'it needs nodes, as {"127.0.0.1:8000": 1} or [{host: 127.0.0.1, port: 8000, weight: 1}]'
                )
            text = f"the stand-in asks no service registry for {upstream.service_name}"
            place = part.at("service_name").place
            self._report.lacking(place, text, "give it nodes", outcome=f"requests go to {CLUSTER}")
            found.append(_node(CLUSTER, default_port, 1, here.place))
        elif isinstance(upstream.nodes, dict):
            for name, weight in upstream.nodes.items():
                found.append(_node(str(name), default_port, weight, here.at(name).place))
        else:
            for node in upstream.nodes:
                host = node.host.removeprefix("[").removesuffix("]")
                found.append(Node(host, default_port if node.port is None else node.port, node.weight))
        if not found:
            self._report.lacking(
                here.place, "there is no node", "give at least one", outcome="requests get 503", stand_in=False
            )
        return tuple(found)


def _node(name: str, default_port: int, weight: int, place: Place) -> Node:
    """Make a node of a key of ``nodes``: a host, or host and port."""
    host, colon, digits = name.rpartition(":")
    port = int(digits) if colon and digits.isascii() and digits.isdigit() else None
    if port is None or (name.startswith("[") and not host.endswith("]")):
        host, port = name, default_port
    host = host.removeprefix("[").removesuffix("]")
    if not host or not 0 < port < 65536:
        raise place.wrong(f"a node has a host and a port from 1 to 65535, not {host!r} and {port!r}")
    return Node(host, port, weight)
