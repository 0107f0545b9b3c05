"""What a runner does with its session all the time, in C: the compiled twins of methods of `Session`.

All else is left to `Session`: a read that does not bring one frame alone and whole, a frame that may not come now, a
payload that cannot be decoded, a message that may not be sent.
"""

from cpython.bytearray cimport PyByteArray_CheckExact, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.list cimport PyList_Append, PyList_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t

from ._decode cimport decode_from
from ._encode cimport encode_answer
from .slots cimport held, number_of, set_slot, slot, slot_of

from ..errors import RemoteProtocolError
from .frames import FrameReader, FrameType
from .messages import Var
from .session import Session, State, var_asks

__all__ = ["SOURCES", "receive", "send"]

cdef extern from *:
    const char *ASGI_BRIDGE_SOURCES

SOURCES = ASGI_BRIDGE_SOURCES.decode()
"""Digest of the sources of this build."""

cdef object SESSION = Session, READER = FrameReader, VAR = Var, VAR_ASKS = var_asks
cdef Py_ssize_t NAME = slot_of(VAR, "name")
cdef Py_ssize_t STATE = slot_of(SESSION, "_state"), ASKS = slot_of(SESSION, "_asks"), ENDED = slot_of(SESSION, "_eof")
cdef Py_ssize_t READS = slot_of(SESSION, "_reader"), RUNNER = slot_of(SESSION, "_runner")
cdef Py_ssize_t READY = slot_of(READER, "_ready"), BUFFER = slot_of(READER, "buffer")
cdef object yes = True, no = False
cdef PyObject *YES = <PyObject *>yes
cdef PyObject *NO = <PyObject *>no
cdef object IDLE = State.IDLE, REQ_CALLED = State.REQ_CALLED, RESP_CALLED = State.RESP_CALLED
cdef int REQ_CALL = FrameType.HTTP_REQ_CALL.value, RESP_CALL = FrameType.HTTP_RESP_CALL.value


cdef object receive_usual(object session, object data, Py_ssize_t start, Py_ssize_t end):
    """Return the message that a part of `data` is; None: something is unusual, and nothing has changed.

    Args:
        session: The connection's.
        data: The bytes of a read.
        start: Position in them at which the message begins.
        end: The one at which it ends. The caller has checked that it is within them; -1: the end of all.
    """
    cdef const uint8_t *at
    cdef Py_ssize_t size
    cdef long asks = 0
    cdef object reader, buffer, message, state, after
    if type(session) is not SESSION or not PyBytes_CheckExact(data):
        return None
    at = <const uint8_t *>PyBytes_AS_STRING(data) + start
    size = (PyBytes_GET_SIZE(data) if end < 0 else end) - start
    if size < HEADER or (<Py_ssize_t>at[1] << 16 | at[2] << 8 | at[3]) != size - HEADER:
        return None
    if slot(session, RUNNER) is not YES or slot(session, ENDED) is not NO:
        return None
    reader = held(session, READS)
    if type(reader) is not READER or slot(reader, READY) is not <PyObject *>None:
        return None
    buffer = held(reader, BUFFER)
    if not PyByteArray_CheckExact(buffer) or PyByteArray_GET_SIZE(buffer):
        return None
    state = held(session, STATE)
    if state is IDLE:
        if at[0] == REQ_CALL:
            after = REQ_CALLED
        elif at[0] == RESP_CALL:
            after = RESP_CALLED
        else:
            return None
    elif at[0] == EXTRA_INFO and (state is REQ_CALLED or state is RESP_CALLED):
        after = state
        asks = number_of(slot(session, ASKS))
        if asks < 1:
            return None
    else:
        return None
    try:
        message = decode_from(at[0], data, start + HEADER, start + size, False)
    except RemoteProtocolError:
        return None
    # to make a message may run a finalizer, which may do anything
    if slot(session, STATE) is not <PyObject *>state:
        return None
    if at[0] == EXTRA_INFO:
        if number_of(slot(session, ASKS)) != asks:
            return None
        set_slot(session, ASKS, asks - 1)
    set_slot(session, STATE, after)
    return message


cdef bytes send_usual(object session, object message):
    """Encode an answer, and change the state; None: something is unusual, and nothing has changed."""
    cdef bytes made
    cdef PyObject *state
    if type(session) is not SESSION or slot(session, RUNNER) is not YES or number_of(slot(session, ASKS)):
        return None
    state = slot(session, STATE)
    made = encode_answer(message, state is <PyObject *>REQ_CALLED, state is <PyObject *>RESP_CALLED)
    if made is not None:
        set_slot(session, STATE, IDLE)
    return made


cdef bytes ask_usual(object session, tuple infos):
    """Encode asks for variables, and count them; None: something is unusual, and nothing has changed."""
    cdef PyObject *state
    cdef list asks = []
    cdef object info, name
    cdef long count
    if type(session) is not SESSION or slot(session, RUNNER) is not YES:
        return None
    for info in infos:
        if type(info) is not VAR:
            return None
        name = held(info, NAME)
        PyList_Append(asks, VAR_ASKS[name])
    state = slot(session, STATE)
    count = number_of(slot(session, ASKS))
    if count < 0 or (state is not <PyObject *>REQ_CALLED and state is not <PyObject *>RESP_CALLED):
        return None
    set_slot(session, ASKS, count + PyList_GET_SIZE(asks))
    return asks[0] if PyList_GET_SIZE(asks) == 1 else b"".join(asks)


def receive(session, data):
    """Take the bytes of one read, and return the first message. See `Session.receive`."""
    cdef object message = receive_usual(session, data, 0, -1)
    if message is None:
        message = session.receive(data)
    return message


def send(session, message):
    """Encode a message, and change the state as if it had been written. See `Session.send`."""
    cdef bytes made = send_usual(session, message)
    return session.send(message) if made is None else made
