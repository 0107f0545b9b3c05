"""The choice of the codec: the package and these tests all follow one place."""

import subprocess
import sys
import textwrap

import pytest

from asgi_bridge import wire
from asgi_bridge.wire import HTTPReqCallReq, Role, Session, decode, encode
from asgi_bridge.wire.codec import CODECS, Codec


def test_the_first_codec_is_used_everywhere() -> None:
    program = """
        from asgi_bridge import gateway, wire
        from asgi_bridge.gateway.runner import connection
        from asgi_bridge.wire import codec, session

        first = codec.CODECS[0]
        for module in (codec, wire, session, connection):
            for name in ("decode", "encode"):
                assert getattr(module, name) is getattr(first, name), (module, name)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


def test_codecs_have_names_of_their_own() -> None:
    names = [each.name for each in CODECS]
    assert len(set(names)) == len(names)
    assert "python" in names


def test_tests_run_on_the_codec_of_the_fixture(codec: Codec) -> None:
    assert (decode, encode) == (codec.decode, codec.encode)
    assert (wire.decode, wire.encode) == (codec.decode, codec.encode)


def test_sessions_run_on_the_codec_of_the_fixture(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def spying_decode(frame_type: int, payload: bytes, role: Role) -> wire.Message:
        calls.append("decode")
        return codec.decode(frame_type, payload, role)

    def spying_encode(message: wire.Message) -> bytes:
        calls.append("encode")
        return codec.encode(message)

    monkeypatch.setattr(wire.session, "decode", spying_decode)
    monkeypatch.setattr(wire.session, "encode", spying_encode)
    request = HTTPReqCallReq(1)
    runner = Session(Role.RUNNER)
    runner.receive_data(Session(Role.GATEWAY).send(request))
    assert runner.next_message() == request
    assert calls == ["encode", "decode"]
