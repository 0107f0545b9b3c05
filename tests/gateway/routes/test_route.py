from asgi_bridge.gateway import ExtPlugin, Node, Plugins, Route, Routes, Upstream


def found(routes: Routes, method: str = "GET", host: bytes = b"a.test", path: bytes = b"/x/y") -> str | None:
    route = routes.match(method, host, path)
    return None if route is None else route.id


def test_exact_host_before_wildcard_before_none() -> None:
    routes = Routes([Route("any"), Route("wild", hosts=("*.test",)), Route("exact", hosts=("a.test",))])
    assert found(routes) == "exact"
    assert found(routes, host=b"b.test") == "wild"
    assert found(routes, host=b"b.example") == "any"


def test_exact_path_before_the_longest_prefix() -> None:
    routes = Routes(
        [Route("all"), Route("short", uris=("/x*",)), Route("long", uris=("/x/*", "/q")), Route("y", ("/x/y",))]
    )
    assert [found(routes, path=path) for path in (b"/x/y", b"/x/z", b"/xa", b"/q", b"/")] == [
        "y", "long", "short", "long", "all",
    ]  # fmt: skip


def test_star_after_a_slash_matches_no_more_than_its_regular_expression_can() -> None:
    routes = Routes(
        [Route("star", uris=("/x/*",)), Route("prefix", uris=("/p*",)), Route("exact", ("/" + "e" * 7000,))]
    )
    assert [found(routes, path=path) for path in (b"/x/" + b"y" * 6398, b"/x/" + b"y" * 6399)] == ["star", None]
    assert [found(routes, path=path) for path in (b"/" + b"p" * 7000, b"/" + b"e" * 7000)] == ["prefix", "exact"]


def test_priority_and_method_decide_between_equals() -> None:
    routes = Routes([Route("low"), Route("high", priority=5), Route("post", methods=frozenset({"POST"}), priority=9)])
    assert found(routes) == "high"
    assert found(routes, "POST") == "post"
    assert found(Routes([Route("h", hosts=("b.test",))])) is None
    assert found(Routes([Route("u", uris=("/b",))])) is None


def test_upstream_goes_to_the_heaviest_node() -> None:
    upstream = Upstream((Node("a", 1, 1), Node("b", 2, 3), Node("c", 3, 3)))
    assert upstream.node == Node("b", 2, 3)
    assert Upstream().node is None
    assert Upstream().authority(Node("a", 443)) == b"a:443"
    assert Upstream().authority(Node("a", 80)) == b"a"
    assert Upstream(scheme="https").authority(Node("a", 443)) == b"a"


def test_plugins_are_put_over_others_by_name() -> None:
    own, base = ExtPlugin([(b"a", b"{}")]), ExtPlugin([(b"b", b"{}")])
    merged = Plugins({"x": own}, {"cors": {}}).over(Plugins({"x": base, "y": base}))
    assert merged == Plugins({"x": own, "y": base}, {"cors": {}})
    assert own.names == ["a"]
    assert ExtPlugin().names == []


def test_stars_inside_a_pattern() -> None:
    routes = Routes(
        [
            Route("inside", ("/o/*/items",)),
            Route("two", ("/t/*/u/*/v",)),
            Route("not-first", ("/a*b/c",)),
            Route("slash", ("/s/*/",)),
            Route("dot", ("/d.x/*/y",)),
            Route("plus", ("/p+q/*",)),
            Route("too-often", ("/r/*/a{99999999999}",)),
        ]
    )
    wanted = {
        b"/o/1/items": "inside", b"/o/1/2/items": "inside", b"/o//items": "inside", b"/o/1/item": None,
        b"/o/items": None, b"/o/1/items/": None, b"/o/1/items2": None, b"/t/1/u/2/v": "two", b"/t/1/2/v": None,
        # a star in the middle of a segment only ends the prefix
        b"/anything": "not-first", b"/s/1/": "slash", b"/s/1": None,
        # segments are taken for regular expressions, behind a prefix that is not
        b"/d.x/1/y": "dot", b"/dax/1/y": None, b"/p+q/1": None,
        "/o/ü/items".encode(): "inside",
        b"/r/1/a": None,
    }  # fmt: skip
    assert {path: found(routes, path=path) for path in wanted} == wanted


def test_of_patterns_with_one_prefix_the_priority_counts_then_the_length() -> None:
    routes = Routes(
        [
            Route("plain", ("/x/*",)),
            Route("longer", ("/x/*/z",)),
            Route("first", ("/y/*",), priority=1),
            Route("second", ("/y/*/z",)),
            Route("deeper", ("/y/a/*",), priority=-5),
        ]
    )
    assert [found(routes, path=path) for path in (b"/x/1/z", b"/x/1", b"/y/1/z", b"/y/a/z")] == [
        "longer", "plain", "first", "deeper",
    ]  # fmt: skip


def test_candidates_come_in_the_order_in_which_they_are_asked() -> None:
    routes = Routes(
        [Route("a"), Route("b", hosts=("a.test",)), Route("c", uris=("/x/y",)), Route("d"), Route("e", ("/q",))]
    )
    assert [route.id for route in routes.candidates("GET", b"a.test", b"/x/y")] == ["b", "c", "a", "d"]
