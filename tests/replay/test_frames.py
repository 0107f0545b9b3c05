"""Every frame between a real APISIX 3.18.0 and a runner: decoded, compared with the record, written again."""

import ipaddress
import re
from collections import Counter
from typing import Any

import pytest

from asgi_bridge.errors import RemoteProtocolError
from asgi_bridge.wire import (
    ErrResp,
    ExtraInfoReq,
    ExtraInfoResp,
    FrameReader,
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    PrepareConfReq,
    PrepareConfResp,
    ReqBody,
    RespBody,
    Rewrite,
    Role,
    Session,
    State,
    Stop,
    TextEntry,
    Var,
    decode,
    encode,
)

from ..wire import oracle
from ..wire.conftest import codec  # noqa: F401  # runs the tests of this module on every codec
from .cases import latin1, load_cases, unbase64, unhex

RPCS = [(case["name"], rpc) for case in load_cases() for rpc in case["rpcs"]]


# What varies from run to run has a name in the records. The frames have its number there, filled up with zeros.
UUID = b"<uuid#1>", b"1".zfill(36)


def text(recorded: str | None) -> bytes | None:
    data = latin1(recorded)
    return None if data is None else data.replace(*UUID)


def body(recorded: str | None) -> bytes | None:
    data = unbase64(recorded)
    return None if data is None else data.replace(*UUID)


def entries(pairs: list[list[str | None]] | None) -> list[TextEntry] | None:
    return None if pairs is None else [(text(name), text(value)) for name, value in pairs]


def by_name(decoded: list[TextEntry] | None) -> list[TextEntry] | None:
    """Sort headers as the records do: by name; repeated ones keep their order."""
    return None if decoded is None else sorted(decoded, key=lambda entry: entry[0] or b"")


def read(data: bytes) -> tuple[int, bytes]:
    """Return type and payload of the one frame in `data`."""
    reader = FrameReader()
    reader.receive_data(data)
    frame = reader.next_frame()
    assert frame is not None and reader.next_frame() is None and reader.pending == 0
    return frame


def check(data: bytes, role: Role) -> Any:
    """Decode a frame. The official package has to read the same from the frame, and from what we write."""
    kind, payload = read(data)
    message = decode(kind, payload, role)
    # Lua's builder leaves old bytes in the padding of an empty string, where its NUL should be.
    oracle.verify(type(message), payload, nul=False)
    assert oracle.decode(type(message), payload) == message
    again = encode(message)
    new_kind, new_payload = read(again)
    assert new_kind == kind
    oracle.verify(type(message), new_payload)
    assert oracle.decode(type(message), new_payload) == message
    assert decode(new_kind, new_payload, role) == message
    return message


def test_cases_are_complete() -> None:
    assert len(load_cases()) == 592
    assert Counter(rpc["type"] for _, rpc in RPCS) == {1: 612, 2: 464, 4: 160}


def expected_call(name: str, rpc: dict[str, Any]) -> Any:
    if rpc["type"] == 1:
        # one frame has no vector; the record has [] there
        conf = entries(rpc["conf"]) if name != "req-conf-absent" else None
        return PrepareConfReq(conf, text(rpc["key"]))
    if rpc["type"] == 2:
        return HTTPReqCallReq(
            rpc["id"],
            ipaddress.ip_address(rpc["src_ip"]).packed,
            rpc["method"],
            body(rpc["path_b64"]),
            entries(rpc["args"]),
            entries(rpc["headers"]),
            rpc["conf_token"],
        )
    return HTTPRespCallReq(rpc["id"], rpc["status"], entries(rpc["headers"]), rpc["conf_token"])


def comparable(message: Any) -> Any:
    """Return a call without what the records do not keep: the order of names, and the digits of versions."""
    match message:
        case PrepareConfReq(conf, key):
            return PrepareConfReq(conf, re.sub(rb"(?<=[#&])0+(?=[#&]|$)", b"<version>", key or b""))
        case HTTPReqCallReq():
            return HTTPReqCallReq(
                message.id,
                message.src_ip,
                message.method,
                message.path,
                by_name(message.args),
                by_name(message.headers),
                message.conf_token,
            )
        case HTTPRespCallReq():
            return HTTPRespCallReq(message.id, message.status, by_name(message.headers), message.conf_token)


def test_calls() -> None:
    cut = 0
    for name, rpc in RPCS:
        data = unhex(rpc["frame_in_hex"])
        if data is None:
            cut += 1
            continue
        assert comparable(check(data, Role.RUNNER)) == expected_call(name, rpc), name
    assert cut == 2


def expected_ask(ask: str) -> Any:
    if ask.startswith("var:"):
        return Var(ask[4:].encode())  # the route's text, which is not latin-1
    return {"reqbody": ReqBody(), "respbody": RespBody(), "var-no-name": Var(None), "type:0": None}[ask]


def test_asks_and_their_results() -> None:
    count = Counter[str]()
    for name, rpc in RPCS:
        asks = list(rpc["extra"])
        results = list(rpc["extra"])
        for step in rpc["frames_extra_hex"]:
            data = unhex(step["hex"])
            if step["way"] == "out":
                ask = asks.pop(0)["ask"]
                assert data is not None
                if ask == "raw:00":
                    with pytest.raises(RemoteProtocolError) as caught:
                        check(data, Role.GATEWAY)
                    assert caught.value.recoverable
                    count["malformed ask"] += 1
                else:
                    assert check(data, Role.GATEWAY) == ExtraInfoReq(expected_ask(ask)), name
                    count["ask"] += 1
                continue
            result = results.pop(0)
            if data is None:
                count["cut"] += 1
                continue
            message = check(data, Role.RUNNER)
            if "volatile" in result:
                assert message == ExtraInfoResp(message.result and b"0" * len(message.result)), name
                count["volatile"] += 1
            else:
                assert message == ExtraInfoResp(body(result["result_b64"])), name
                count["result"] += 1
        assert not asks
        assert len(results) == sum("no_reply" in result for result in results), name
    assert count == {"ask": 625, "malformed ask": 1, "cut": 5, "volatile": 35, "result": 581}


def expected_answer(kind: int, answer: dict[str, Any]) -> Any:
    if "conf_token" in answer:
        return PrepareConfResp(answer["conf_token"])
    content = body(answer.get("body_b64"))
    headers = entries(answer.get("headers"))
    match answer["action"]:
        case "error":
            return ErrResp(answer["code"])
        case "none":
            return HTTPReqCallResp(answer["id"])
        case "stop":
            return HTTPReqCallResp(answer["id"], Stop(answer.get("status", 0), headers, content))
        case "rewrite":
            args, resp_headers = entries(answer.get("args")), entries(answer.get("resp_headers"))
            rewrite = Rewrite(text(answer.get("path")), headers, args, resp_headers, content)
            return HTTPReqCallResp(answer["id"], rewrite)
        case "resp":
            return HTTPRespCallResp(answer["id"], answer.get("status", 0), headers, content)
    raise AssertionError(answer)


def test_answers() -> None:
    count = Counter[str]()
    for name, rpc in RPCS:
        answer = rpc["answer"]
        data = unhex(rpc["frame_out_hex"])
        action = answer.get("action")
        write = answer.get("write")
        if data is None:
            count["cut" if rpc["frame_out_hex"] is not None else "not sent"] += 1
            assert rpc["frame_out_hex"] is not None or action in ("drop", "hang", "none sent")
        elif isinstance(write, dict) and "cut" in write:
            reader = FrameReader()
            reader.receive_data(data)
            assert reader.next_frame() is None and reader.pending == write["cut"] == len(data)
            count["cut off"] += 1
        elif action in ("undecodable", "odd"):
            with pytest.raises(RemoteProtocolError) as caught:
                check(data, Role.GATEWAY)
            assert caught.value.recoverable
            count[action] += 1
        else:
            assert check(data, Role.GATEWAY) == expected_answer(data[0], answer), name
            count["answer"] += 1
    # undecodable: no payload, one zero byte, 32 bytes 0xff, a Stop said to be a Rewrite; odd: a Stop without its table
    assert count == {"answer": 1204, "undecodable": 11, "odd": 1, "cut off": 3, "cut": 6, "not sent": 11}


def test_sessions_of_both_roles_replay_every_rpc() -> None:
    """Both sessions go through each RPC. A frame that breaks the protocol ends the gateway's session."""
    outcomes = Counter[str]()
    for name, rpc in RPCS:
        call = unhex(rpc["frame_in_hex"])
        answer = unhex(rpc["frame_out_hex"])
        steps = [(step["way"], unhex(step["hex"])) for step in rpc["frames_extra_hex"]]
        if call is None or any(data is None for _, data in steps):
            outcomes["cut"] += 1
            continue
        runner, gateway = Session(Role.RUNNER), Session(Role.GATEWAY)
        gateway.send(decode(*read(call), Role.RUNNER))
        runner.receive_data(call)
        assert runner.next_message() is not None
        try:
            for way, data in steps:
                assert data is not None
                if way == "out":
                    gateway.receive_data(data)
                    runner.send(decode(*read(data), Role.GATEWAY))
                else:
                    assert isinstance(gateway.next_message(), ExtraInfoReq)
                    runner.receive_data(data)
                    message = runner.next_message()
                    assert isinstance(message, ExtraInfoResp), name
                    gateway.send(message)
            if answer is None:
                outcomes["no answer"] += 1
                continue
            gateway.receive_data(answer)
            message = gateway.next_message()
            if message is None:
                gateway.receive_eof()
                with pytest.raises(RemoteProtocolError, match="unfinished frame"):
                    gateway.next_message()
                outcomes["cut off"] += 1
                continue
        except RemoteProtocolError as exc:
            outcomes["recoverable" if exc.recoverable else "broken"] += 1
            assert (gateway.state is State.ERROR) is not exc.recoverable
            continue
        runner.send(message)
        assert runner.state is gateway.state is State.IDLE
        outcomes["answered"] += 1
    # broken: the answer's frame has a type that does not answer this call
    assert outcomes == {"answered": 1194, "no answer": 16, "recoverable": 12, "broken": 4, "cut off": 3, "cut": 7}
