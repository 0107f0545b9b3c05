"""The limits of APISIX's schema for routes, upstreams, and the other entries."""

from typing import Any

import pytest

from asgi_bridge.errors import ConfigurationError
from asgi_bridge.gateway import read_routes
from tests.gateway.routes.entries import builtin, route, upstream


def test_a_list_of_many_hosts_is_searched_once() -> None:
    compared: list[str] = []

    class Host(str):
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            compared.append(self)
            return str.__eq__(self, other)

    hosts = [Host(f"h{number}.test") for number in range(2000)]
    assert read_routes({"routes": [{"uri": "/", "plugins": {}, "hosts": hosts}]}).routes[0].hosts == tuple(hosts)
    # once each would be a list that is searched for each entry: 2,000,000
    assert len(compared) < 20_000


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"desc": "x" * 257}, "desc: this has 257 characters; APISIX accepts 256 at most"),
        ({"name": ""}, "name: this is empty; APISIX accepts one character at least"),
        ({"name": "n" * 257}, "name: this has 257 characters; APISIX accepts 256 at most"),
        (
            {"id": "a b"},
            "id: 'a b' (str) is not an id: ids are numbers from 1, or have 1 to 64 letters, digits, - _",
        ),
        ({"id": "i" * 65}, "is not an id: ids are numbers from 1, or have 1 to 64 letters, digits, - _ and ."),
        ({"id": 0}, "id: 0 (int) is not an id: ids are numbers from 1, or have"),
        ({"id": True}, "id: True (bool) is not an id: ids are numbers from 1, or have"),
        ({"uri": "/" + "u" * 4096}, "uri: this has 4097 characters; APISIX accepts 4096 at most"),
        ({"labels": ["a"]}, "labels: this has to be a mapping, not ['a'] (list)"),
        ({"labels": {"a": "b c"}}, "labels.a: 'b c' is not a label: labels have no spaces"),
        ({"labels": {"a": 1}}, "labels.a: this has to be a string, not 1 (int); put it in quotes"),
        ({"methods": ["GET", "GET"]}, "methods[1]: 'GET' is here twice; APISIX accepts it only once"),
        ({"hosts": ["a", "b", "a"]}, "hosts[2]: 'a' is here twice; APISIX accepts it only once"),
        ({"host": "a_b.test/x"}, "host: 'a_b.test/x' has to be a name without a port"),
        ({"host": "b\u00fccher.test"}, "has to be a name without a port"),
        ({"remote_addr": "$env://ADDRESS"}, "remote_addr: this has to be an IP address, or one with /BITS"),
        ({"remote_addr": "10.0.0.0/33"}, "remote_addr: this has to be an IP address, or one with /BITS"),
        ({"remote_addrs": ["::1", "::1"]}, "remote_addrs[1]: '::1' is here twice"),
        ({"remote_addr": "::1", "remote_addrs": ["::1"]}, "remote_addrs: it has remote_addr as well; keep one of them"),
        ({"vars": "x"}, "vars: this has to be a list, not 'x' (str)"),
        ({"vars": [["a", "=", "b"]]}, "vars: there is no operator '='; there are: ! == ~="),
        ({"vars": ["arg_a", "==", "b"]}, "vars: each comparison needs brackets of its own"),
        ({"priority": 1.5}, "priority: this has to be a whole number, not 1.5 (float)"),
        ({"timeout": {"connect": 1, "send": 1}}, "timeout: APISIX requires read here"),
        ({"timeout": 5}, "timeout: this has to be a mapping, not 5 (int)"),
        ({"create_time": "now"}, "create_time: this has to be a whole number, not 'now' (str)"),
        ({"enable_websocket": "yes"}, "enable_websocket: this has to be true or false, not 'yes' (str)"),
        ({"service_id": ""}, "service_id: '' (str) is not an id"),
        ({"filter_func": "return true"}, "filter_func: the stand-in runs no Lua"),
        ({"valid": 1}, "valid: APISIX does not know this field; take it out. There are "),
    ],
)
def test_limits_of_a_route(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_routes(route(**fields))
    assert message in str(caught.value)
    assert read_routes(route(**fields), strict=False).routes == () or "filter_func" in fields


def test_values_at_their_limits_are_accepted() -> None:
    fields = {
        "id": "A-z_0.9" + "i" * 57, "desc": "\u00fc" * 256, "name": "n" * 256, "uri": "/" + "u" * 4095,
        "labels": {"a": "b"},
        "methods": [], "hosts": ["*", "*.b.test", "[::1]"], "priority": 2.0, "remote_addrs": ["10.0.0.1/8", "::1"],
        "vars": [], "create_time": 1, "status": 1, "timeout": {"connect": 0.1, "send": 1, "read": 2, "more": 3},
    }  # fmt: skip
    (found,) = read_routes(route(**fields)).routes
    assert (found.priority, found.methods, found.hosts) == (2, frozenset(), ("*", "*.b.test", "[::1]"))
    assert list(map(str, found.remote_addrs)) == ["10.0.0.0/8", "::1/128"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nodes": [{"host": "h", "port": 1}]}, "upstream.nodes[0]: APISIX requires weight here"),
        ({"nodes": [{"host": "h_/", "port": 1, "weight": 1}]}, "upstream.nodes[0].host: 'h_/' has to be a name"),
        ({"nodes": [{"host": "h", "port": 65536, "weight": 1}]}, "nodes[0].port: this has to be a number up to 65535"),
        ({"nodes": {"h:1": 1.5}}, "upstream.nodes.h:1: this has to be a whole number, not 1.5"),
        ({"retries": -1}, "upstream.retries: this has to be a number from 0, not -1"),
        ({"retry_timeout": "1"}, "upstream.retry_timeout: this has to be a number, not '1' (str)"),
        (
            {"hash_on": "ip"},
            "hash_on: this has to be vars, header, cookie, consumer or vars_combinations, not 'ip'",
        ),
        ({"keepalive_pool": {"size": 0}}, "upstream.keepalive_pool.size: this has to be a number from 1, not 0"),
        ({"checks": {"passive": {}}}, "upstream.checks: APISIX requires active here"),
        (
            {"checks": {"active": {"healthy": {"successes": 255}}}},
            "successes: this has to be a number up to 254, not 255",
        ),
        ({"tls": {"client_cert": "c" * 128}}, "upstream.tls: client_cert and client_key belong together; give both"),
        ({"tls": {"client_cert": "c"}}, "upstream.tls.client_cert: this has 1 characters; APISIX accepts 128 at least"),
        (
            {"tls": {"client_cert": "c" * 128, "client_key": "k" * 64}},
            "upstream.tls: certificate and key cannot be used",
        ),
        ({"tls": {"client_cert_id": 1}}, "upstream.tls.client_cert_id: there is no client_cert '1'; there are: none"),
        ({"upstream_host": "a b"}, "upstream.upstream_host: 'a b' has to be a name"),
        ({"load": 1}, "upstream.load: APISIX does not know this field; take it out."),
    ],
)
def test_limits_of_an_upstream(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_routes(upstream(**fields))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"routes": [{"uri": "/"}]}, "route number 1: it needs plugins, an upstream, an upstream_id or a service_id"),
        (
            {"consumers": [{"username": "a.b", "plugins": {}}]},
            "username: 'a.b' is not a username: usernames have letters",
        ),
        ({"consumers": [{"plugins": {}}]}, "consumer number 1: APISIX requires username here"),
        (
            {"consumers": [{"username": "a", "plugins": {"key-auth": {}}}]},
            "key-auth: APISIX requires key here",
        ),
        ({"global_rules": [{"plugins": {}}]}, "global rule number 1: APISIX requires id here"),
        (
            {"plugin_configs": [{"id": 1}]},
            "plugin config '1': APISIX requires plugins here; name them, or take",
        ),
        (
            {"services": [{"id": 1, "host": "a"}]},
            "service '1': host: APISIX does not know this field; did you mean 'hosts'?",
        ),
        (builtin("proxy-rewrite"), "plugins.proxy-rewrite: APISIX wants one field at least"),
        (builtin("proxy-rewrite", host="a b"), "plugins.proxy-rewrite: host has to be a name, or one with a port"),
        (builtin("proxy-rewrite", method="get"), "plugins.proxy-rewrite: method is one of GET, POST, PUT"),
        (builtin("proxy-rewrite", uri="/" + "u" * 4096), "plugins.proxy-rewrite: uri has 4097 characters"),
    ],
)
def test_limits_of_the_rest(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_routes(data)
    assert message in str(caught.value)
