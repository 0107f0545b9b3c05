"""What a key says: its parts are found by their position, whatever they look like."""

import pytest

from asgi_bridge.plugins.key import owner_of, phase_of, route_id_of, stripped

Parts = tuple[tuple[bytes, bytes] | None, str | None, str | None, bytes]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"route#1#ext-plugin-pre-req#7", ((b"route", b"1"), "1", "request", b"route#1#ext-plugin-pre-req")),
        # with a plugin_config there are two versions
        (b"route#1#ext-plugin-post-req#7#8", ((b"route", b"1"), "1", "request", b"route#1#ext-plugin-post-req")),
        (
            b"route&consumer#1&jack#ext-plugin-post-resp#7&9",
            ((b"route", b"1"), "1", "response", b"route&consumer#1&jack#ext-plugin-post-resp"),
        ),
        (
            b"route&service&consumer#1&2&jack#ext-plugin-pre-req#7&8&9",
            ((b"route", b"1"), "1", "request", b"route&service&consumer#1&2&jack#ext-plugin-pre-req"),
        ),
        (
            b"global_rule#1#ext-plugin-post-resp#7",
            ((b"global_rule", b"1"), None, "response", b"global_rule#1#ext-plugin-post-resp"),
        ),
        # ids that look like another part
        (
            b"route#ext-plugin-post-resp#ext-plugin-pre-req#7",
            ((b"route", b"ext-plugin-post-resp"), "ext-plugin-post-resp", "request",
             b"route#ext-plugin-post-resp#ext-plugin-pre-req"),
        ),
        (
            b"route#ext-plugin-pre-req#ext-plugin-post-resp#7",
            ((b"route", b"ext-plugin-pre-req"), "ext-plugin-pre-req", "response",
             b"route#ext-plugin-pre-req#ext-plugin-post-resp"),
        ),
        (
            b"route&consumer#1&ext-plugin-post-resp#ext-plugin-pre-req#7&8",
            ((b"route", b"1"), "1", "request", b"route&consumer#1&ext-plugin-post-resp#ext-plugin-pre-req"),
        ),
        (
            b"global_rule#route#ext-plugin-pre-req#7",
            ((b"global_rule", b"route"), None, "request", b"global_rule#route#ext-plugin-pre-req"),
        ),
        (
            b"route#a#ext-plugin-post-resp#b#ext-plugin-pre-req#7",
            ((b"route", b"a#ext-plugin-post-resp#b"), "a#ext-plugin-post-resp#b", "request",
             b"route#a#ext-plugin-post-resp#b#ext-plugin-pre-req"),
        ),
        (b"route#a&b#ext-plugin-pre-req#7", ((b"route", b"a&b"), "a&b", "request", b"route#a&b#ext-plugin-pre-req")),
        (b"route#ext-plugin-post-resp#other#7", ((b"route", b"ext-plugin-post-resp"), "ext-plugin-post-resp", None,
                                                 b"route#ext-plugin-post-resp#other")),
        # nothing to share
        (None, (None, None, None, b"")),
        (b"", (None, None, None, b"")),
        (b"route#1", (None, None, None, b"route#1")),
        (b"route##ext-plugin-pre-req#7", (None, None, "request", b"route##ext-plugin-pre-req")),
        (b"#1#ext-plugin-pre-req#7", (None, None, "request", b"#1#ext-plugin-pre-req")),
        (b"route&consumer#&jack#ext-plugin-pre-req#7", (None, None, "request",
                                                        b"route&consumer#&jack#ext-plugin-pre-req")),
        (b"route#%s#ext-plugin-pre-req#7" % (b"x" * 257), (None, None, "request",
                                                           b"route#%s#ext-plugin-pre-req" % (b"x" * 257))),
        (b"route#\xff#ext-plugin-pre-req#7", ((b"route", b"\xff"), "\ufffd", "request",
                                              b"route#\xff#ext-plugin-pre-req")),
    ],
)  # fmt: skip
def test_what_a_key_tells(key: bytes | None, expected: Parts) -> None:
    assert (owner_of(key), route_id_of(key), phase_of(key), stripped(key or b"")) == expected
