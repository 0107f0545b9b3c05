"""The compiled core and pure Python: the same messages, the same scopes, the same exceptions."""

import os
import random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from asgi_bridge.compiled import core_in_use
from asgi_bridge.wire import HEADER_SIZE, HTTPReqCallReq, Role, encode

from ..fuzzing import examples
from ..wire.damage import RECORDED, damaged

if core_in_use() != "compiled" and os.environ.get("ASGI_BRIDGE_COMPILED") != "1":
    pytest.skip("the compiled core is not in use", allow_module_level=True)

from . import differential
from .differential import (
    Difference,
    compare_payload,
    compare_scope,
    generated,
    shared_entries,
    small_offsets,
    words_of_headers,
)

many = settings(
    max_examples=examples(),
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
SEEDS = st.integers(0, 2**32)


@many
@given(st.integers(-1, 6), st.sampled_from(Role), st.binary(max_size=4096))
def test_any_bytes(frame_type: int, role: Role, payload: bytes) -> None:
    compare_payload(frame_type, payload, role)


@many
@given(st.integers(0, 4), st.sampled_from(Role), st.binary(max_size=100))
def test_any_small_offsets(frame_type: int, role: Role, choices: bytes) -> None:
    compare_payload(frame_type, small_offsets(choices), role)


@many
@given(st.binary(max_size=60), st.integers(0, 8), SEEDS)
def test_messages_whole_and_damaged(data: bytes, kind: int, seed: int) -> None:
    frame_type, payload, role = generated(data, kind)
    assert compare_payload(frame_type, payload, role) is not None
    compare_payload(frame_type, damaged(payload, random.Random(seed)), role)


@many
@given(st.integers(0, len(RECORDED) - 1), SEEDS)
def test_recorded_frames_whole_and_damaged(number: int, seed: int) -> None:
    frame_type, payload, role = RECORDED[number]
    assert compare_payload(frame_type, payload, role) is not None
    compare_payload(frame_type, damaged(payload, random.Random(seed)), role)


@many
@given(SEEDS)
def test_requests_whole_and_damaged(seed: int) -> None:
    chance = random.Random(seed)
    frame_type, payload, role = words_of_headers(chance)
    assert compare_payload(frame_type, payload, role) is not None
    compare_payload(frame_type, damaged(payload, chance), role)


@many
@given(SEEDS)
def test_entries_that_share_their_content(seed: int) -> None:
    chance = random.Random(seed)
    frame_type, payload, role = shared_entries(chance)
    compare_payload(frame_type, payload, role)
    compare_payload(frame_type, damaged(payload, chance), role)


def test_every_cut_of_a_frame() -> None:
    for frame_type, payload, role in RECORDED:
        for size in range(0, len(payload), 1 + len(payload) // 100):
            compare_payload(frame_type, payload[:size], role)


@pytest.mark.parametrize("kind", [-(1 << 80), -1, 5, 1 << 31, (1 << 32) + 2, 1 << 80])
def test_frame_types_of_any_size(kind: int) -> None:
    for role in Role:
        assert compare_payload(kind, RECORDED[0][1], role) is None


def test_a_message_that_is_made_by_hand() -> None:
    compare_scope(HTTPReqCallReq())
    compare_scope(HTTPReqCallReq(1, b"", "HEAD", b"", [], []))
    compare_scope(HTTPReqCallReq(1, b"\x7f\0\0\1", "GET", b"/\xff?", [(b"", None)], [(b"x-forwarded-proto", b"ftp")]))
    compare_scope(HTTPReqCallReq(args=[(None, b"")]))
    compare_scope(HTTPReqCallReq(headers=[(b"a", None)]))
    compare_scope(HTTPReqCallReq(headers=[(None, b"a")]))


def test_names_of_headers_are_kept_and_nothing_else() -> None:
    headers = [(b"host", b"a.test"), (b"user-agent", b"curl"), (b"x-" + b"a" * 38, b"40"), (b"x-" + b"a" * 39, b"41")]
    payload = encode(HTTPReqCallReq(args=[(b"host", b"a.test")], headers=list(headers)))[HEADER_SIZE:]
    first, second = (compare_payload(2, payload, Role.RUNNER) for _ in range(2))
    assert first.headers == headers
    assert [one[0] is other[0] for one, other in zip(first.headers, second.headers, strict=True)] == [True] * 3 + [
        False
    ]
    assert not any(one[1] is other[1] for one, other in zip(first.headers, second.headers, strict=True))
    assert first.args[0][0] is not second.args[0][0]


def test_a_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differential, "pure_decode", lambda *_: HTTPReqCallReq(True))
    with pytest.raises(Difference, match=r"^decode\(2, b'.*\npure:     .*id=True.*\ncompiled: .*id=1"):
        compare_payload(*generated(b"\2\1", 3))
