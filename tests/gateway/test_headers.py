import pytest

from asgi_bridge.gateway.nginx.headers import LuaError, RequestHeaders, ResponseHeaders


def test_request_header_is_set_in_place_of_all_of_its_name() -> None:
    headers = RequestHeaders([(b"X-A", b"1"), (b"X-B", b"2"), (b"x-a", b"3")])
    headers.set(b"x-A", b"new\r\nX-Injected: 1")
    assert headers.nginx == [(b"x-A", b"new%0D%0AX-Injected: 1"), (b"X-B", b"2")]
    headers.set(b"", b"nothing")
    assert headers.nginx == [(b"x-A", b"new%0D%0AX-Injected: 1"), (b"X-B", b"2")]
    assert headers.values(b"x-b") == [b"2"]


def test_empty_request_header_leaves_the_list_and_stays_in_the_table() -> None:
    headers = RequestHeaders([(b"X-A", b"1"), (b"X-B", b"2")])
    assert headers.table == {b"x-a": [b"1"], b"x-b": [b"2"]}
    headers.set(b"X-A", b"")
    headers.set(b"X-B", None)
    assert headers.nginx == []
    assert headers.table == {b"x-a": [b""]}


def test_only_the_first_hundred_request_headers_are_shown() -> None:
    headers = RequestHeaders([(b"X-%d" % number, b"1") for number in range(150)])
    assert list(headers.table) == [b"x-%d" % number for number in range(100)]


def test_first_response_header_of_a_name_sets_and_further_ones_add() -> None:
    headers = ResponseHeaders()
    headers.items = [(b"X-A", b"before")]
    headers.take_entries(
        [(b"x-a", b"1"), (b"X-A", b"2"), (b"X-B", b"3"), (b"X-B", b""), (b"X-C", b"4"), (b"X-C", None)]
    )
    assert list(headers) == [(b"X-A", b"1"), (b"x-a", b"2"), (b"x-b", b"3")]


def test_some_response_headers_have_one_place_only() -> None:
    headers = ResponseHeaders()
    headers.take_entries([(b"ETag", b"1"), (b"ETag", b"2"), (b"Location", b"/a"), (b"Location", b"/b")])
    assert list(headers) == [(b"etag", b"2"), (b"location", b"/a"), (b"location", b"/b")]
    headers = ResponseHeaders()
    headers.take_entries([(b"Location", b"http://a"), (b"Location", b"/b")])
    assert list(headers) == [(b"location", b"/b")]


def test_content_type_and_length_have_a_place_of_their_own() -> None:
    headers = ResponseHeaders()
    headers.take_entries(
        [(b"Content-Type", b"a/b"), (b"Content-Type", b"c/d"), (b"Content-Length", b"5"), (b"", b"dropped")]
    )
    assert (headers.content_type, headers.content_length, list(headers)) == (b"c/d", 5, [])
    headers.take_entries([(b"Content-Type", None), (b"Content-Length", b"")])
    assert (headers.content_type, headers.content_length) == (b"", None)


def test_dropped_names_and_kept_spelling() -> None:
    headers = ResponseHeaders()
    headers.take_entries([(b"X-A", b"1"), (b"X-A", b"2"), (b"Server", b"s")], drop=frozenset({b"server"}), lower=False)
    assert list(headers) == [(b"X-A", b"1"), (b"X-A", b"2")]
    headers.remove(b"x-a")
    assert headers.get(b"x-a") is None


def test_underscores_in_response_names_become_hyphens_after_they_were_compared() -> None:
    headers = ResponseHeaders()
    headers.take_entries(
        [(b"x_a", b"1"), (b"x-a", b"2"), (b"X_B", b"3"), (b"X_B", b"4"), (b"content_type", b"a/b")],
        drop=frozenset({b"content-type"}),
    )
    assert (list(headers), headers.content_type) == ([(b"x-a", b"2"), (b"x-b", b"3"), (b"x-b", b"4")], b"a/b")


def test_what_raises_in_lua() -> None:
    headers = ResponseHeaders()
    with pytest.raises(LuaError):
        headers.take_entries([(None, b"1")])
    with pytest.raises(LuaError):
        headers.take_entries([(b"Content-Length", b"abc")])
    with pytest.raises(LuaError):
        RequestHeaders([]).set(b"content-length", b"abc")
