"""``ip-access`` lets clients of some networks pass, IPv4 and IPv6."""

import ipaddress
import random
from typing import Any

import pytest
from asgi_bridge_apps import bridge
from asgi_bridge_apps.ip_access import Networks
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from asgi_bridge import ConfigurationError
from asgi_bridge.testing import PluginClient

from .routes import gateway


def status(conf: Any, address: str | None, headers: dict[str, str] | None = None) -> int:
    gate: TestClient = PluginClient(bridge, "ip-access", conf, client=(address, 1) if address is not None else None)
    return int(gate.get("/", headers=headers).status_code)


@pytest.mark.parametrize(
    ("conf", "passes", "refused"),
    [
        (
            {"allow": ["10.0.0.0/8", "192.0.2.7"]},
            ["10.0.0.0", "10.255.255.255", "192.0.2.7", "::ffff:10.1.2.3"],
            ["9.255.255.255", "11.0.0.0", "192.0.2.6", "192.0.2.8", "::1", "::ffff:11.0.0.0", "::10.0.0.1"],
        ),
        (
            {"allow": ["2001:db8::/32", "::1"]},
            ["2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "::1", "2001:DB8::A", "::1%lo"],
            ["2001:db7:ffff::", "2001:db9::", "::2", "127.0.0.1"],
        ),
        ({"deny": ["10.0.0.0/8"]}, ["9.9.9.9", "::1", "2001:db8::1"], ["10.0.0.1", "::ffff:10.0.0.1"]),
        ({"allow": ["10.0.0.0/8"], "deny": ["10.1.0.0/16"]}, ["10.0.0.1", "10.2.0.1"], ["10.1.0.1", "11.0.0.1"]),
        ({"allow": ["10.1.0.0/16"], "deny": ["10.0.0.0/8"]}, [], ["10.1.0.1", "10.2.0.1"]),
        ({"allow": ["0.0.0.0/0"]}, ["1.2.3.4", "255.255.255.255"], ["::1"]),
        ({"allow": ["::/0"]}, ["::1"], ["1.2.3.4", "::ffff:1.2.3.4"]),
        ({"deny": ["0.0.0.0/0", "::/0"]}, [], ["1.2.3.4", "::1"]),
    ],
)
def test_allow_and_deny(conf: Any, passes: list[str], refused: list[str]) -> None:
    assert {address: status(conf, address) for address in passes} == dict.fromkeys(passes, 200)
    assert {address: status(conf, address) for address in refused} == dict.fromkeys(refused, 403)


@pytest.mark.parametrize("address", [None, "", "unix:", "testclient", "10.0.0.256", "10.0.0.1, 10.0.0.2", "010.0.0.1"])
@pytest.mark.parametrize("conf", [{"allow": ["0.0.0.0/0", "::/0"]}, {"deny": ["192.0.2.1"]}])
def test_a_client_without_an_address_does_not_pass(conf: Any, address: str | None) -> None:
    assert status(conf, address) == 403


@pytest.mark.parametrize("name", ["x-forwarded-for", "x-real-ip", "forwarded", "client-ip"])
def test_no_header_of_the_client_changes_its_address(name: str) -> None:
    assert status({"allow": ["10.0.0.0/8"]}, "11.0.0.1", {name: "10.0.0.1"}) == 403
    assert status({"deny": ["10.0.0.0/8"]}, "10.0.0.1", {name: "11.0.0.1"}) == 403


def test_the_route_configures_the_refusal_and_nothing_goes_upstream() -> None:
    reached = []

    async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope)

    conf = {"deny": ["0.0.0.0/0"], "status": 404, "message": "nothing here"}
    answer = PluginClient(bridge, "ip-access", conf, upstream=upstream, client=("1.2.3.4", 1)).get("/")

    assert (answer.status_code, answer.text, reached) == (404, "nothing here", [])


def test_the_ranges_contain_what_the_networks_contain() -> None:
    drawn = random.Random(1)
    for version, bits in ((4, 32), (6, 128)):
        texts = []
        for _ in range(200):
            prefix = drawn.randrange(4, bits + 1)
            number = drawn.getrandbits(bits) >> (bits - prefix) << (bits - prefix)
            made: Any = ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network
            texts.append(str(made((number, prefix))))
        networks, found = [ipaddress.ip_network(text) for text in texts], Networks(texts)
        for network in networks:
            first, last = int(network.network_address), int(network.broadcast_address)
            for number in {max(first - 1, 0), first, last, min(last + 1, 2**bits - 1)}:
                address = (ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address)(number)
                assert (address in found) == any(address in each for each in networks)


def test_through_the_gateway() -> None:
    gate = gateway(bridge, "ip-access", {"allow": ["10.0.0.0/8", "2001:db8::/32"]})

    answers = {
        address: TestClient(gate, client=(address, 1)).get("/").status_code
        for address in ("10.0.0.1", "11.0.0.1", "2001:db8::1", "2001:db9::1")
    }
    assert answers == {"10.0.0.1": 200, "11.0.0.1": 403, "2001:db8::1": 200, "2001:db9::1": 403}


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({}, "Value error, give allow or deny, or both"),
        ({"allow": []}, "field 'allow': List should have at least 1 item"),
        ({"deny": []}, "Value error, give allow or deny"),
        ({"allow": "10.0.0.0/8"}, "field 'allow': Input should be a valid array"),
        ({"allow": ["10.0.0.1/8"]}, "field 'allow.0': Value error, write an address, or a network"),
        ({"allow": ["10.0.0.0/33"]}, "field 'allow.0': Value error, write an address, or a network"),
        ({"allow": ["10.0.0"]}, "field 'allow.0': Value error, write an address, or a network"),
        ({"deny": ["example.test"]}, "field 'deny.0': Value error, write an address, or a network"),
        ({"deny": ["::ffff:10.0.0.0/104"]}, "field 'deny.0': Value error, write IPv4 networks in IPv4 notation"),
        ({"deny": ["fe80::1%eth0"]}, "field 'deny.0': Value error, .*zone|field 'deny.0': Value error, no address"),
        ({"deny": [1]}, "field 'deny.0': Input should be a valid string"),
        ({"deny": ["::1"], "status": 499}, "field 'status': Value error, APISIX cannot pass this status on"),
        ({"whitelist": ["::1"]}, "field 'whitelist': Extra inputs are not permitted"),
    ],
)
def test_refuses_a_bad_configuration(conf: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^plugin ip-access: .*{reason}"):
        status(conf, "10.0.0.1")
