"""How a call finds its chain, in C: the compiled twin of `ConfigurationStore.find`."""

from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.object cimport PyObject
from posix.time cimport clock_gettime, clockid_t, timespec
from posix.types cimport time_t

from ..wire.slots cimport held, set_slot, slot, slot_of

from time import time

from .store import ConfigurationStore, _Chains, _Prepared

__all__ = ["SOURCES", "find"]

cdef extern from *:
    """
    /* Its time is a few milliseconds old at most, and takes half as long to read. */
    #ifndef CLOCK_REALTIME_COARSE
    #define CLOCK_REALTIME_COARSE CLOCK_REALTIME
    #endif
    """
    clockid_t CLOCK_REALTIME_COARSE
    const char *ASGI_BRIDGE_SOURCES
    PyObject *PyDict_GetItemWithError(object mapping, object key) except? NULL

SOURCES = ASGI_BRIDGE_SOURCES.decode()
"""Digest of the sources of this build."""

cdef object STORE = ConfigurationStore, CHAINS = _Chains, PREPARED = _Prepared, TIME = time
cdef object FIND_IN_PYTHON = ConfigurationStore.find
cdef Py_ssize_t CLOCK = slot_of(STORE, "_clock"), ALL = slot_of(STORE, "_prepared")
cdef Py_ssize_t FRESH_UNTIL = slot_of(PREPARED, "fresh_until"), CHAIN = slot_of(PREPARED, "chain")
cdef Py_ssize_t SECOND = slot_of(PREPARED, "second")

cdef time_t last_second = -1
cdef object second = None
"""The last second in which a call came, and the number as an object: it is compared by identity."""


cdef object find_in(object store, object token):
    global last_second, second
    cdef object chains, prepared, until
    cdef PyObject *found
    cdef timespec now
    if type(store) is not STORE:
        return store.find(token)
    if slot(store, CLOCK) is not <PyObject *>TIME:
        return FIND_IN_PYTHON(store, token)
    chains = held(store, ALL)
    if type(chains) is not CHAINS:
        return FIND_IN_PYTHON(store, token)
    found = PyDict_GetItemWithError(chains, token)
    if found is NULL:
        return None
    prepared = <object>found
    if type(prepared) is not PREPARED:
        return FIND_IN_PYTHON(store, token)
    clock_gettime(CLOCK_REALTIME_COARSE, &now)
    if now.tv_sec != last_second:
        last_second = now.tv_sec
        second = last_second
    if slot(prepared, SECOND) is not <PyObject *>second:
        until = held(prepared, FRESH_UNTIL)
        if not PyFloat_CheckExact(until) or PyFloat_AS_DOUBLE(until) <= now.tv_sec + now.tv_nsec * 1e-9:
            return FIND_IN_PYTHON(store, token)
        chains.move_to_end(token)
        if PyFloat_AS_DOUBLE(until) >= now.tv_sec + 1:
            set_slot(prepared, SECOND, second)
    return held(prepared, CHAIN)


def find(store, token):
    """Return the chain of `token`; None: it is not here. See `ConfigurationStore.find`."""
    return find_in(store, token) if type(store) is STORE else FIND_IN_PYTHON(store, token)
