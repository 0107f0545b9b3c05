"""How a call finds its chain, in C: the compiled twin of `ConfigurationStore.find`."""

from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.object cimport PyObject
from posix.time cimport clock_gettime, clockid_t, timespec

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
cdef Py_ssize_t LAST = slot_of(CHAINS, "last")
cdef Py_ssize_t FRESH_UNTIL = slot_of(PREPARED, "fresh_until"), CHAIN = slot_of(PREPARED, "chain")


cdef object find_in(object store, object token):
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
    until = held(prepared, FRESH_UNTIL)
    clock_gettime(CLOCK_REALTIME_COARSE, &now)
    if not PyFloat_CheckExact(until) or PyFloat_AS_DOUBLE(until) <= now.tv_sec + now.tv_nsec * 1e-9:
        return FIND_IN_PYTHON(store, token)
    if slot(chains, LAST) is not <PyObject *>prepared:
        chains.move_to_end(token)
        set_slot(chains, LAST, prepared)
    return held(prepared, CHAIN)


def find(store, token):
    """Return the chain of `token`; None: it is not here. See `ConfigurationStore.find`."""
    return find_in(store, token) if type(store) is STORE else FIND_IN_PYTHON(store, token)
