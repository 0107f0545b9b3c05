import pytest

from asgi_bridge.gateway.nginx.uri import (
    encode_args,
    escape_header_name,
    escape_header_value,
    escape_uri,
    host_name,
    normalise_path,
    parse_args,
    split_authority,
    split_target,
)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/", b"/"),
        (b"//a///b/", b"/a/b/"),
        (b"/a/./b/../c", b"/a/c"),
        (b"/a/..", b"/"),
        (b"/a/b/.", b"/a/b/"),
        (b"/a/b/..", b"/a/"),
        (b"/%41%2f%2F%2e%2E/x", b"/x"),
        (b"/%2541", b"/%41"),
        (b"/a+b;c=%E4", b"/a+b;c=\xe4"),
        (b"/%3Fa%23", b"/?a#"),
        (b"/..", None),
        (b"/a/../..", None),
        (b"/%00", None),
        (b"/%4", None),
        (b"/%g0", None),
        (b"", None),
        (b"a", None),
    ],
)
def test_paths_are_normalised_as_nginx_does(raw: bytes, path: bytes | None) -> None:
    assert normalise_path(raw) == path


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"Name.Test", b"name.test"),
        (b"name.test:81", b"name.test"),
        (b"name.test.", b"name.test"),
        (b"name.test.:81", b"name.test"),
        (b"User@h.test:81", b"user@h.test"),
        (b"[::1]:81", b"[::1]"),
        (b"[::1", b"[::1"),
        (b".test", b".test"),
        (b"", None),
        (b".", None),
        (b":81", None),
        (b"a..b", None),
        (b"a/b", None),
        (b"a b", None),
        (b"a\x7f", None),
    ],
)
def test_host_is_validated_as_nginx_does(value: bytes, name: bytes | None) -> None:
    assert host_name(value) == name


def test_target_in_absolute_form_is_split_at_its_path() -> None:
    assert split_authority(b"http://a.test:1/x//y") == (b"a.test:1", b"/x//y")
    assert split_authority(b"HTTP://a.test") == (b"a.test", b"/")
    assert split_authority(b"http://a.test?a=1") == (b"a.test", b"/?a=1")
    assert split_authority(b"/http://a.test") == (None, b"/http://a.test")


def test_target_is_split_before_its_fragment() -> None:
    assert split_target(b"/x?a=1?b#f?g") == (b"/x", b"a=1?b")
    assert split_target(b"/x#f?a=1") == (b"/x", b"")


def test_query_is_decoded_as_openresty_does() -> None:
    assert parse_args(b"a=1+2&flag&e=&a=%2B&=v&=&&p%3D=%zz%4&f=x=y") == {
        b"a": [b"1 2", b"+"],
        b"flag": [None],
        b"e": [b""],
        b"p=": [b"%zz%4"],
        b"f": [b"x=y"],
    }
    assert parse_args(b"") == {}


def test_query_is_encoded_as_openresty_does() -> None:
    args: dict[bytes, list[bytes | None]] = {b"a b": [b"1", None, b""], b"!*'()-._~": [b"/:\xe9+&"]}
    assert encode_args(args) == b"a%20b=1&a%20b&a%20b=&!*'()-._~=%2F%3A%E9%2B%26"


def test_escapes() -> None:
    assert escape_uri(b'/a%?#"<>\\^`{|} [];\x7f\xe9~') == b"/a%25%3F%23%22%3C%3E%5C%5E%60%7B%7C%7D%20[];%7F%E9~"
    assert escape_header_name(b"X Bad:\r\n(%)") == b"X%20Bad%3A%0D%0A%28%%29"
    assert escape_header_value(b"a\r\nb\tc\x7f\xe9") == b"a%0D%0Ab\tc%7F\xe9"
