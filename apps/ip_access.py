"""``ip-access``: lets clients of some networks pass, or of all but some, and answers 403 to the others.

The client's address is the one that connected to the gateway, or the one that APISIX's ``real-ip`` plugin found. No
header of the client changes it. ``::ffff:192.0.2.1`` counts as the IPv4 address ``192.0.2.1``.
"""

import bisect
import ipaddress
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import upstream

from ._shared.conf import Conf, Status, Text, few

__all__ = ["IpAccessConf", "Networks", "ip_access"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_NETWORKS = 4096
"""Maximum number of networks in one list. Reading so many takes a few hundredths of a second."""

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def _network(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("write an address, or a network with no bits set after its prefix") from None
    if isinstance(network, ipaddress.IPv6Network) and (
        network.network_address in _MAPPED or network.network_address.scope_id
    ):
        raise ValueError("write IPv4 networks in IPv4 notation, and IPv6 networks without a zone")
    return network


CIDR = Annotated[str, Field(max_length=64), AfterValidator(_network)]
CIDRs = Annotated[list[CIDR], *few(MAX_NETWORKS)]


class IpAccessConf(Conf):
    """What ``ip-access`` takes."""

    allow: CIDRs | None = Field(
        default=None,
        min_length=1,
        description="Addresses and networks that may pass. Left out: all that deny does not name.",
    )
    deny: CIDRs = Field(
        default=[],
        description="Addresses and networks that may not, even where allow names them.",
        examples=[["127.0.0.0/8"]],
    )
    status: Status = Field(default=403, description="Status of a refusal.")
    message: Text = Field(default="Your address may not pass\n", description="Body of a refusal.")

    @model_validator(mode="after")
    def _allow_or_deny(self) -> "IpAccessConf":
        if self.allow is None and not self.deny:
            raise ValueError("give allow or deny, or both")
        return self


class Networks:
    """A set of addresses. It is kept as sorted ranges, so a look-up is quick in a long list too."""

    def __init__(self, networks: Iterable[str | Network]) -> None:
        parsed = [ipaddress.ip_network(each) if isinstance(each, str) else each for each in networks]
        self._ranges = {version: _ranges(each for each in parsed if each.version == version) for version in (4, 6)}

    def __contains__(self, address: Address) -> bool:
        firsts, lasts = self._ranges[address.version]
        number = int(address)
        index = bisect.bisect_right(firsts, number) - 1
        return index >= 0 and number <= lasts[index]


def _ranges(networks: Iterable[Network]) -> tuple[list[int], list[int]]:
    """Return the first and the last addresses of ranges that are sorted and do not overlap."""
    firsts: list[int] = []
    lasts: list[int] = []
    for first, last in sorted((int(each.network_address), int(each.broadcast_address)) for each in networks):
        if not lasts or first > lasts[-1] + 1:
            firsts.append(first)
            lasts.append(last)
        else:
            lasts[-1] = max(lasts[-1], last)
    return firsts, lasts


def ip_access(conf: IpAccessConf) -> ASGIApp:
    """Let requests pass that come from the allowed networks.

    Args:
        conf: The route's configuration.
    """
    allow = None if conf.allow is None else Networks(conf.allow)
    deny = Networks(conf.deny)
    refusal = PlainTextResponse(conf.message, conf.status)

    async def check(scope: Scope, receive: Receive, send: Send) -> None:
        app: ASGIApp = upstream
        if scope["type"] == "http":
            address = _address(scope)
            if address is None or address in deny or (allow is not None and address not in allow):
                app = refusal
        await app(scope, receive, send)

    return check


def _address(scope: Scope) -> Address | None:
    """Return the client's address; None if it is unknown, and then the request is refused."""
    try:
        address = ipaddress.ip_address(scope["client"][0].partition("%")[0])
    except (ValueError, TypeError):
        return None
    return getattr(address, "ipv4_mapped", None) or address
