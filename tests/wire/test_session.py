"""The session: which message may come when, in both roles, as tables of state, message and next state."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgi_bridge.errors import LocalProtocolError, RemoteProtocolError
from asgi_bridge.wire import (
    MAX_PAYLOAD,
    ErrCode,
    ErrResp,
    ExtraInfoReq,
    ExtraInfoResp,
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    Info,
    Message,
    PrepareConfReq,
    PrepareConfResp,
    ReqBody,
    RespBody,
    Rewrite,
    Role,
    Session,
    State,
    Stop,
    Var,
    encode,
    frame,
)
from asgi_bridge.wire import session as wire_session
from tests.fuzzing import examples

EXAMPLES = examples()
PREPARE = PrepareConfReq([(b"say", b"{}")], b"route#1#ext-plugin-pre-req#1")
PREPARED = PrepareConfResp(7)
REQ = HTTPReqCallReq(0, b"\x7f\0\0\1", "GET", b"/", [], [(b"host", b"a")], 7)
REQ_ANSWER = HTTPReqCallResp(0, Stop(200, [(b"a", b"b")], b"hello"))
RESP = HTTPRespCallReq(1, 200, [(b"a", b"b")], 7)
RESP_ANSWER = HTTPRespCallResp(1, 0, None, b"hello")
ASK = ExtraInfoReq(Var(b"request_id"))
INFO = ExtraInfoResp(b"1234")
ERROR = ErrResp(ErrCode.SERVICE_UNAVAILABLE)

FROM_GATEWAY: list[Message] = [PREPARE, REQ, RESP, INFO, ERROR]
FROM_RUNNER: list[Message] = [PREPARED, REQ_ANSWER, RESP_ANSWER, ASK, ERROR]
SENT_BY = {Role.RUNNER: FROM_RUNNER, Role.GATEWAY: FROM_GATEWAY}
OTHER = {Role.RUNNER: Role.GATEWAY, Role.GATEWAY: Role.RUNNER}

# What each side has sent so far: "g" the gateway, "r" the runner.
Said = tuple[tuple[str, Message], ...]
IDLE: Said = ()
PREPARING: Said = (("g", PREPARE),)
REQ_CALLED: Said = (("g", REQ),)
RESP_CALLED: Said = (("g", RESP),)
REQ_ASKED: Said = (("g", REQ), ("r", ASK))
RESP_ASKED: Said = (("g", RESP), ("r", ASK))
REQ_ASKED_TWICE: Said = (("g", REQ), ("r", ASK), ("r", ASK))
DRAINING: Said = (("g", REQ), ("r", ASK), ("r", REQ_ANSWER))
DRAINING_TWO: Said = (("g", REQ), ("r", ASK), ("r", ASK), ("r", ERROR))

# Sent before, sender, message, state afterwards, unanswered asks afterwards. All other messages are not allowed.
Move = tuple[Said, str, Message, State, int]
MOVES: list[Move] = [
    (IDLE, "g", PREPARE, State.PREPARING, 0),
    (IDLE, "g", REQ, State.REQ_CALLED, 0),
    (IDLE, "g", RESP, State.RESP_CALLED, 0),
    (PREPARING, "r", PREPARED, State.IDLE, 0),
    (PREPARING, "r", ERROR, State.IDLE, 0),
    (REQ_CALLED, "r", REQ_ANSWER, State.IDLE, 0),
    (REQ_CALLED, "r", ERROR, State.IDLE, 0),
    (REQ_CALLED, "r", ASK, State.REQ_CALLED, 1),
    (RESP_CALLED, "r", RESP_ANSWER, State.IDLE, 0),
    (RESP_CALLED, "r", ERROR, State.IDLE, 0),
    (RESP_CALLED, "r", ASK, State.RESP_CALLED, 1),
    (REQ_ASKED, "g", INFO, State.REQ_CALLED, 0),
    (REQ_ASKED, "g", ERROR, State.REQ_CALLED, 0),
    (RESP_ASKED, "g", INFO, State.RESP_CALLED, 0),
    (RESP_ASKED, "g", ERROR, State.RESP_CALLED, 0),
]
# Only a runner can be in these: a gateway's session holds back frames until it has answered the ask before them.
RUNNER_MOVES: list[Move] = [
    (REQ_ASKED, "r", ASK, State.REQ_CALLED, 2),
    (RESP_ASKED, "r", ASK, State.RESP_CALLED, 2),
    (REQ_ASKED_TWICE, "r", ASK, State.REQ_CALLED, 3),
    (REQ_ASKED_TWICE, "g", INFO, State.REQ_CALLED, 1),
    (REQ_ASKED_TWICE, "g", ERROR, State.REQ_CALLED, 1),
    (REQ_ASKED, "r", REQ_ANSWER, State.DRAINING, 1),
    (REQ_ASKED, "r", ERROR, State.DRAINING, 1),
    (RESP_ASKED, "r", RESP_ANSWER, State.DRAINING, 1),
    (RESP_ASKED, "r", ERROR, State.DRAINING, 1),
    (REQ_ASKED_TWICE, "r", REQ_ANSWER, State.DRAINING, 2),
    (REQ_ASKED_TWICE, "r", ERROR, State.DRAINING, 2),
    (DRAINING, "g", INFO, State.IDLE, 0),
    (DRAINING, "g", ERROR, State.IDLE, 0),
    (DRAINING_TWO, "g", INFO, State.DRAINING, 1),
    (DRAINING_TWO, "g", ERROR, State.DRAINING, 1),
]
RUNNER_ONLY = [REQ_ASKED_TWICE, DRAINING, DRAINING_TWO]


def is_ours(role: Role, who: str) -> bool:
    return (who == "r") is (role is Role.RUNNER)


def session(role: Role, said: Said) -> Session:
    """Make a session on which all that was sent and received."""
    made = Session(role)
    for who, message in said:
        if is_ours(role, who):
            made.send(message)
        else:
            made.receive_data(encode(message))
            assert made.next_message() == message
    return made


def allowed(role: Role) -> list[Move]:
    return MOVES + RUNNER_MOVES if role is Role.RUNNER else MOVES


CASES = [(role, *move) for role in Role for move in allowed(role)]
WHOLE: Callable[[bytes], list[bytes]] = lambda data: [data]  # noqa: E731
BYTEWISE: Callable[[bytes], list[bytes]] = lambda data: [data[n : n + 1] for n in range(len(data))]  # noqa: E731


@pytest.mark.parametrize("cut", [WHOLE, BYTEWISE], ids=["whole", "byte by byte"])
@pytest.mark.parametrize(("role", "said", "who", "message", "state", "asks"), CASES)
def test_moves(
    role: Role, said: Said, who: str, message: Message, state: State, asks: int, cut: Callable[[bytes], list[bytes]]
) -> None:
    tried = session(role, said)
    before = tried.state
    if is_ours(role, who):
        assert tried.send(message) == encode(message)
    else:
        *parts, last = cut(encode(message))
        for part in parts:
            tried.receive_data(part)
            assert tried.next_message() is None
            assert tried.state is before
        tried.receive_data(last)
        # the late answers to asks are dropped
        assert tried.next_message() == (None if before is State.DRAINING else message)
        if not (role is Role.GATEWAY and asks):
            assert tried.next_message() is None
    assert (tried.state, tried.asks) == (state, asks)


SAID = [IDLE, PREPARING, REQ_CALLED, RESP_CALLED, REQ_ASKED, RESP_ASKED, REQ_ASKED_TWICE, DRAINING, DRAINING_TWO]
FORBIDDEN = [
    (role, said, who, message)
    for role in Role
    for said in SAID
    if role is Role.RUNNER or said not in RUNNER_ONLY
    for who, messages in (("g", FROM_GATEWAY), ("r", FROM_RUNNER))
    for message in messages
    if not any(move[:3] == (said, who, message) for move in allowed(role))
    # held back, see below
    if not (role is Role.GATEWAY and who == "r" and said in (REQ_ASKED, RESP_ASKED))
]


@pytest.mark.parametrize(("role", "said", "who", "message"), FORBIDDEN)
def test_forbidden_moves(role: Role, said: Said, who: str, message: Message) -> None:
    tried = session(role, said)
    state, asks = tried.state, tried.asks
    if is_ours(role, who):
        with pytest.raises(LocalProtocolError, match=type(message).__name__):
            tried.send(message)
        assert (tried.state, tried.asks) == (state, asks)
        return
    tried.receive_data(encode(message) + encode(message))
    with pytest.raises(RemoteProtocolError, match="while the connection is") as caught:
        tried.next_message()
    assert not caught.value.recoverable
    assert_broken(tried)


def assert_broken(tried: Session) -> None:
    """Check that the session stays broken."""
    assert tried.state is State.ERROR
    for action in (tried.next_message, lambda: tried.receive_data(b"")):
        with pytest.raises(RemoteProtocolError, match="before") as caught:
            action()
        assert not caught.value.recoverable
    for message in SENT_BY[tried.role]:
        with pytest.raises(LocalProtocolError, match="broken by the other side"):
            tried.send(message)
    assert tried.state is State.ERROR


def test_every_pair_of_state_and_message_is_in_a_table() -> None:
    runner = [case for case in FORBIDDEN if case[0] is Role.RUNNER]
    assert len(runner) + len(allowed(Role.RUNNER)) == len(SAID) * 10
    gateway = [case for case in FORBIDDEN if case[0] is Role.GATEWAY]
    assert len(gateway) + len(allowed(Role.GATEWAY)) == 6 * 10 - 2 * 5


@pytest.mark.parametrize("role", Role)
def test_neither_side_sends_what_is_the_other_sides(role: Role) -> None:
    for message in SENT_BY[OTHER[role]]:
        if message != ERROR:
            with pytest.raises(LocalProtocolError, match=f"a {role.name.lower()} does not send"):
                Session(role).send(message)
    with pytest.raises(LocalProtocolError, match="does not send Stop"):
        Session(role).send(Stop())  # type: ignore[arg-type]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("said", [IDLE, PREPARING, REQ_CALLED, RESP_CALLED])
def test_unknown_frame_types_break_the_connection(role: Role, said: Said) -> None:
    for kind in (5, 128, 255):
        tried = session(role, said)
        tried.receive_data(frame(kind, b""))
        with pytest.raises(RemoteProtocolError, match=f"type {kind} while") as caught:
            tried.next_message()
        assert not caught.value.recoverable
        assert_broken(tried)


# --- payloads that cannot be decoded --------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"\0", b"\xff" * 32])
@pytest.mark.parametrize(
    ("kind", "state", "answer"),
    [
        (1, State.PREPARING, PREPARED),
        (2, State.REQ_CALLED, REQ_ANSWER),
        (4, State.RESP_CALLED, RESP_ANSWER),
        (1, State.PREPARING, ERROR),
        (2, State.REQ_CALLED, ERROR),
        (4, State.RESP_CALLED, ERROR),
    ],
)
def test_an_undecodable_call_can_be_answered(kind: int, payload: bytes, state: State, answer: Message) -> None:
    runner = Session(Role.RUNNER)
    runner.receive_data(frame(kind, payload) + encode(REQ))
    with pytest.raises(RemoteProtocolError) as caught:
        runner.next_message()
    assert caught.value.recoverable
    assert runner.state is state
    assert runner.send(answer) == encode(answer)
    assert runner.next_message() == REQ


@pytest.mark.parametrize("payload", [b"", b"\0", b"\xff" * 32])
@pytest.mark.parametrize("said", [REQ_ASKED, RESP_ASKED])
def test_an_undecodable_answer_to_an_ask_is_its_answer(said: Said, payload: bytes) -> None:
    runner = session(Role.RUNNER, said)
    state = runner.state
    runner.receive_data(frame(3, payload))
    with pytest.raises(RemoteProtocolError) as caught:
        runner.next_message()
    assert caught.value.recoverable
    assert (runner.state, runner.asks) == (state, 0)
    assert runner.next_message() is None
    runner.send(ERROR)
    assert runner.state is State.IDLE


def test_late_answers_need_not_be_decodable() -> None:
    runner = session(Role.RUNNER, DRAINING_TWO)
    runner.receive_data(frame(3, b"\xff") + frame(0, b"") + encode(REQ))
    assert runner.next_message() == REQ
    assert (runner.state, runner.asks) == (State.REQ_CALLED, 0)


@pytest.mark.parametrize(("said", "kind"), [(PREPARING, 1), (REQ_CALLED, 2), (RESP_CALLED, 4), (REQ_CALLED, 0)])
def test_an_undecodable_answer_ends_the_call(said: Said, kind: int) -> None:
    gateway = session(Role.GATEWAY, said)
    gateway.receive_data(frame(kind, b"\xff"))
    with pytest.raises(RemoteProtocolError) as caught:
        gateway.next_message()
    assert caught.value.recoverable
    assert gateway.state is State.IDLE


def test_an_undecodable_ask_is_an_ask() -> None:
    gateway = session(Role.GATEWAY, REQ_CALLED)
    gateway.receive_data(frame(3, b"\0") + encode(REQ_ANSWER))
    with pytest.raises(RemoteProtocolError) as caught:
        gateway.next_message()
    assert caught.value.recoverable
    assert gateway.next_message() is None
    gateway.send(INFO)
    assert gateway.next_message() == REQ_ANSWER


# --- asks -----------------------------------------------------------------------------------------------------------


def test_several_asks_at_once_are_answered_in_order() -> None:
    runner, gateway = session(Role.RUNNER, REQ_CALLED), session(Role.GATEWAY, REQ_CALLED)
    asks = [ExtraInfoReq(Var(b"scheme")), ExtraInfoReq(ReqBody()), ExtraInfoReq(Var(b"nope"))]
    results = [ExtraInfoResp(b"https"), ExtraInfoResp(b"body"), ExtraInfoResp(None)]
    gateway.receive_data(b"".join(map(runner.send, asks)))
    answers = b""
    for ask, result in zip(asks, results, strict=True):
        assert gateway.next_message() == ask
        assert gateway.next_message() is None
        answers += gateway.send(result)
    assert gateway.next_message() is None
    runner.receive_data(answers)
    assert [runner.next_message() for _ in range(4)] == [*results, None]
    gateway.receive_data(runner.send(REQ_ANSWER))
    assert gateway.next_message() == REQ_ANSWER
    assert runner.state is gateway.state is State.IDLE


def test_one_ask_for_many_is_all_or_nothing() -> None:
    runner, gateway = Session(Role.RUNNER), Session(Role.GATEWAY)
    runner.receive_data(gateway.send(HTTPReqCallReq(1)))
    assert runner.next_message() == HTTPReqCallReq(1)
    with pytest.raises(LocalProtocolError):
        runner.ask([Var(b"a"), Var(b"b" * (MAX_PAYLOAD + 1))])
    assert (runner.asks, runner.state) == (0, State.REQ_CALLED)
    data = runner.ask([Var(b"a"), ReqBody()])
    assert data == encode(ExtraInfoReq(Var(b"a"))) + encode(ExtraInfoReq(ReqBody()))
    assert (runner.asks, runner.state) == (2, State.REQ_CALLED)
    runner.send(HTTPReqCallResp(1))
    with pytest.raises(LocalProtocolError, match="while the connection is waiting"):
        runner.ask([Var(b"a")])
    with pytest.raises(LocalProtocolError):
        gateway.ask([Var(b"a")])


def test_asks_that_are_sent_together_are_those_sent_one_by_one() -> None:
    infos: list[Info] = [Var(b"scheme"), ReqBody(), Var(b"scheme"), Var(None), Var(b"n" * 100), RespBody(), Var(b"")]
    one, other = session(Role.RUNNER, REQ_CALLED), session(Role.RUNNER, REQ_CALLED)
    for _ in range(2):
        assert one.ask(infos) == b"".join(other.send(ExtraInfoReq(info)) for info in infos)
        assert (one.state, one.asks) == (other.state, other.asks)
    assert one.ask([]) == b""


@pytest.mark.parametrize("said", [IDLE, PREPARING, DRAINING])
def test_nothing_is_asked_where_that_may_not_be(said: Said) -> None:
    runner = session(Role.RUNNER, said)
    state, asks = runner.state, runner.asks
    with pytest.raises(LocalProtocolError, match=f"^ExtraInfoReq while the connection is {state.value}$"):
        runner.ask([Var(b"a"), Var(b"b")])
    with pytest.raises(LocalProtocolError, match="too long for a frame"):
        session(Role.RUNNER, REQ_CALLED).ask([Var(b"a"), Var(b"b" * 2**24)])
    assert (runner.state, runner.asks) == (state, asks)


def test_kept_asks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = type(wire_session.var_asks)()
    monkeypatch.setattr(wire_session, "var_asks", kept)
    runner = session(Role.RUNNER, REQ_CALLED)
    runner.ask([Var(b"%d" % number) for number in range(2000)] + [Var(b"n" * 65)])
    assert len(kept) == 1024
    assert max(len(name or b"") for name in kept) <= 64


def test_gateway_holds_back_the_answer_until_the_asks_before_it_are_answered() -> None:
    """APISIX reads the next frame when it has answered (recorded case `extra-pipelined-with-answer`)."""
    runner, gateway = session(Role.RUNNER, REQ_CALLED), session(Role.GATEWAY, REQ_CALLED)
    gateway.receive_data(runner.send(ASK) + runner.send(ASK) + runner.send(REQ_ANSWER))
    assert (runner.state, runner.asks) == (State.DRAINING, 2)
    for _ in range(2):
        assert gateway.next_message() == ASK
        assert gateway.next_message() is None
        runner.receive_data(gateway.send(INFO))
    assert gateway.next_message() == REQ_ANSWER
    assert runner.next_message() is None
    assert runner.state is gateway.state is State.IDLE
    runner.receive_data(gateway.send(RESP))
    assert runner.next_message() == RESP


def test_a_call_that_comes_while_another_is_open_breaks_the_connection() -> None:
    runner = Session(Role.RUNNER)
    runner.receive_data(encode(REQ) + encode(REQ))
    assert runner.next_message() == REQ
    with pytest.raises(RemoteProtocolError, match="HTTP_REQ_CALL while the connection is in a request call") as caught:
        runner.next_message()
    assert not caught.value.recoverable
    assert_broken(runner)


def state_of(session: Session) -> State:
    """Return the state now. mypy assumes that a property keeps the value of an earlier assert."""
    return session.state


# --- sending --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_encoded_leaves_the_call_open() -> None:
    runner = session(Role.RUNNER, REQ_CALLED)
    with pytest.raises(LocalProtocolError, match="too long"):
        runner.send(HTTPReqCallResp(0, Rewrite(body=bytes(MAX_PAYLOAD))))
    assert state_of(runner) is State.REQ_CALLED
    runner.send(ERROR)
    assert state_of(runner) is State.IDLE


# --- the end of the stream ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("said", [IDLE, PREPARING, REQ_CALLED, RESP_CALLED])
def test_closing_between_frames(role: Role, said: Said) -> None:
    tried = session(role, said)
    state = tried.state
    tried.receive_eof()
    assert tried.state is state
    for _ in range(2):
        assert tried.next_message() is None
        assert tried.state is State.CLOSED
    for message in SENT_BY[role]:
        with pytest.raises(LocalProtocolError, match="closed by the other side"):
            tried.send(message)
    with pytest.raises(LocalProtocolError, match="after the end"):
        tried.receive_data(b"x")


def test_what_came_before_the_end_is_given_out() -> None:
    runner = Session(Role.RUNNER)
    runner.receive_data(encode(REQ))
    runner.receive_eof()
    assert runner.next_message() == REQ
    assert state_of(runner) is State.REQ_CALLED
    assert runner.next_message() is None
    assert state_of(runner) is State.CLOSED


@pytest.mark.parametrize("size", range(1, 5))
def test_closing_within_a_frame(size: int) -> None:
    runner = Session(Role.RUNNER)
    runner.receive_data(encode(REQ)[:size])
    assert runner.next_message() is None
    runner.receive_eof()
    with pytest.raises(RemoteProtocolError, match=f"after {size} bytes of an unfinished frame") as caught:
        runner.next_message()
    assert not caught.value.recoverable
    assert_broken_after_eof(runner)


def assert_broken_after_eof(tried: Session) -> None:
    assert tried.state is State.ERROR
    with pytest.raises(RemoteProtocolError, match="before"):
        tried.next_message()


# --- anything at all ------------------------------------------------------------------------------------------------


def outcome(tried: Session) -> list[Any]:
    """Read and answer messages until more bytes are needed or the connection is broken, and return what was read."""
    found: list[Any] = []
    while True:
        try:
            message = tried.next_message()
        except RemoteProtocolError as exc:
            found.append(exc.recoverable)
            if not exc.recoverable:
                return found
            message = None
        if message is not None:
            found.append(message)
        elif not found or found[-1] is not True:
            return found
        else:
            found.append("undecodable")
        if tried.role is Role.RUNNER and tried.state is not State.IDLE:
            tried.send(ERROR)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    st.sampled_from([Role.RUNNER, Role.GATEWAY]),
    st.lists(
        st.sampled_from([*map(encode, FROM_GATEWAY), *map(encode, FROM_RUNNER), frame(2, b"\xff"), frame(9, b"")])
        | st.binary(max_size=40),
        max_size=6,
    ),
)
def test_any_stream_is_messages_or_errors_however_it_is_cut(role: Role, parts: list[bytes]) -> None:
    data = b"".join(parts)
    said = IDLE if role is Role.RUNNER else REQ_CALLED
    whole = session(role, said)
    whole.receive_data(data)
    expected = outcome(whole)
    bytewise = session(role, said)
    got: list[Any] = []
    for n in range(len(data)):
        bytewise.receive_data(data[n : n + 1])
        got += outcome(bytewise)
        if bytewise.state is State.ERROR:
            break
    assert got == expected
    assert (bytewise.state, bytewise.asks) == (whole.state, whole.asks)
