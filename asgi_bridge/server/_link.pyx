"""What a worker notes of each call for its supervisor, in C: compiled twins of methods of `Link` in ``worker.py``."""

from cpython.bytearray cimport PyByteArray_CheckExact, PyByteArray_GET_SIZE
from cpython.list cimport PyList_Append, PyList_CheckExact, PyList_GET_SIZE
from cpython.object cimport PyObject

from ..wire.slots cimport held, is_kind, set_slot, slot, slot_of

from ..wire import Session
from ..wire.frames import FrameReader
from ..wire.session import State
from .protocol import RunnerProtocol
from .worker import Link
from .worker_protocol import WorkerProtocol

__all__ = ["SOURCES", "answered", "busy", "settle"]

cdef extern from *:
    const char *ASGI_BRIDGE_SOURCES

SOURCES = ASGI_BRIDGE_SOURCES.decode()
"""Digest of the sources of this build."""

cdef object LINK = Link, PROTOCOL = RunnerProtocol, WORKER = WorkerProtocol, SESSION = Session, READER = FrameReader
cdef object SETTLE_IN_PYTHON = Link.settle, ANSWERED_IN_PYTHON = Link.answered, BUSY_IN_PYTHON = Link.busy
cdef object IDLE = State.IDLE, no = False, ZERO = 0, ONE = 1

cdef Py_ssize_t FLAGS = slot_of(LINK, "flags"), ANSWERED = slot_of(LINK, "_answered")
cdef Py_ssize_t CONNECTIONS = slot_of(LINK, "_connections")
cdef Py_ssize_t NUMBER = slot_of(WORKER, "slot"), GIVING = slot_of(WORKER, "giving")
cdef Py_ssize_t OF_CONNECTION = slot_of(PROTOCOL, "_session"), BUSY = slot_of(PROTOCOL, "_busy")
cdef Py_ssize_t TRANSPORT = slot_of(PROTOCOL, "_transport")
cdef Py_ssize_t STATE = slot_of(SESSION, "_state"), READS = slot_of(SESSION, "_reader")
cdef Py_ssize_t BUFFER = slot_of(READER, "buffer")


def busy(link, connection):
    """Note that something of a call was read that is not answered. See `Link.busy`."""
    if type(link) is not LINK or not is_kind(connection, WORKER):
        return BUSY_IN_PYTHON(link, connection)
    held(link, FLAGS)[held(connection, NUMBER)] = ONE


def answered(link, connection):
    """Note an answer. See `Link.answered`."""
    cdef object waiting
    if type(link) is LINK and is_kind(connection, WORKER) and slot(connection, GIVING) is <PyObject *>no:
        waiting = held(link, ANSWERED)
        if PyList_CheckExact(waiting) and PyList_GET_SIZE(waiting):  # the first one has to call for `settle`
            PyList_Append(waiting, connection)
            return
    ANSWERED_IN_PYTHON(link, connection)


cdef bint _is_idle(object connection) except -1:
    """Do what `WorkerProtocol.is_idle` does."""
    cdef object session = held(connection, OF_CONNECTION), reader, buffer
    if type(session) is not SESSION:
        return connection.is_idle()
    if slot(connection, BUSY) is not <PyObject *>no or slot(session, STATE) is not <PyObject *>IDLE:
        return False
    reader = held(session, READS)
    if type(reader) is not READER:
        return connection.is_idle()
    buffer = held(reader, BUFFER)
    if not PyByteArray_CheckExact(buffer) or PyByteArray_GET_SIZE(buffer):
        return False
    return not held(connection, TRANSPORT).get_write_buffer_size()


def settle(link):
    """Note that connections are idle again. See `Link.settle`."""
    cdef object answered, connection, number, flags, connections
    if type(link) is not LINK:
        return SETTLE_IN_PYTHON(link)
    answered = held(link, ANSWERED)
    flags = held(link, FLAGS)
    connections = held(link, CONNECTIONS)
    set_slot(link, ANSWERED, [])
    for connection in answered:
        if _is_idle(connection) if is_kind(connection, WORKER) else connection.is_idle():
            number = connection.slot
            if connections.get(number) is connection:
                flags[number] = ZERO
