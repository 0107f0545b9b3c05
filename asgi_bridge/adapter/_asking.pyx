"""What a plugin asks the gateway for, in C: the compiled twin of `Call.var`.

It does what is usual, and leaves all else to `Call.var`: calls of other classes, calls that are parked or over.
"""

from cython cimport final
from cpython.object cimport PyObject

from ..plugins._later cimport Later
from ..wire.slots cimport held, set_slot, slot, slot_of
from ._request_call cimport messages_of

from ..errors import PluginError
from .call import Call
from .connection import asks_for
from .request import RequestCall
from .stage import RUNNING

__all__ = ["SOURCES", "var"]

cdef extern from *:
    """
    /* Do what `await` does with an object that is no coroutine. */
    static PyObject *awaited(PyObject *self) {
        PyAsyncMethods *methods = Py_TYPE(self)->tp_as_async;
        if (methods != NULL && methods->am_await != NULL) return methods->am_await(self);
        return PyObject_CallMethod(self, "__await__", NULL);
    }
    """
    object awaited(object self)
    const char *ASGI_BRIDGE_SOURCES

SOURCES = ASGI_BRIDGE_SOURCES.decode()
"""Digest of the sources of this build."""

cdef object CALL = RequestCall, VAR_IN_PYTHON = Call.var, ASKS_FOR = asks_for, is_running = RUNNING
cdef Py_ssize_t MESSAGES = slot_of(CALL, "_messages"), STAGE = slot_of(CALL, "stage")
cdef Py_ssize_t PARKING = slot_of(CALL, "parking"), CONNECTION = slot_of(CALL, "_connection")


cdef object _ask(object call, tuple names):
    """Ask the gateway for variables. Returns a future; None: something is unusual, and nothing was done."""
    cdef object name
    cdef long count = messages_of(call) if type(call) is CALL else -1
    if (
        count < 0
        or slot(call, STAGE) is not <PyObject *>is_running
        or slot(call, PARKING) is not <PyObject *>None
        or not names
    ):
        return None
    for name in names:
        if type(name) is not str or not name:
            return None
    set_slot(call, MESSAGES, count + 1)
    return held(call, CONNECTION).ask(ASKS_FOR[names])


@final
cdef class Asking(Later):
    """What `Call.var` returns."""

    cdef object call
    cdef tuple names
    cdef bint asked

    cdef object begin(self):
        cdef object future = _ask(self.call, self.names)
        if future is None:
            return VAR_IN_PYTHON(self.call, *self.names)
        self.asked = True
        return awaited(future)

    cdef object ended(self, object value):
        cdef list values
        cdef object name
        cdef dict found
        cdef Py_ssize_t index = 0
        if not self.asked:
            return value
        if type(value) is not list or len(value) != len(self.names):
            dict(zip(self.names, value, strict=True))  # says what is wrong
        values = value
        found = {}
        for name in self.names:
            found[name] = values[index]
            index += 1
        if "request_id" in found:
            self.call.note_request_id(values[self.names.index("request_id")])
        return found if index > 1 else values[0]

    cdef int failed(self, object exc) except -1:
        if self.asked and isinstance(exc, PluginError):
            self.call._note(exc)
        return 0


def var(call, *names):
    """Ask the gateway for variables, once it is awaited. See `Call.var`."""
    cdef Asking made = Asking.__new__(Asking)
    made.call = call
    made.names = names
    return made
