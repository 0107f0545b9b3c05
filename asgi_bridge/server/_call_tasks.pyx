"""The first steps of calls in C: the compiled twin of `begin_in_turn` in ``call_tasks.py``.

A call that waits for nothing needs no coroutine around its plugins. `Call.run` is asked only for the rest of a call:
where it waits, where something went wrong, where it owes an answer.
"""

from cpython.object cimport PyObject

from ..adapter._request_call cimport begin_run, end_run, usual_chain
from ..plugins._layers cimport YIELDED, RETURNED, is_own, run_on

from weakref import getweakrefcount

from .call_tasks import Rest, nothing, raising

__all__ = ["SOURCES", "begin_in_turn"]

cdef extern from *:
    const char *ASGI_BRIDGE_SOURCES
    object PyContext_CopyCurrent()
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    Py_ssize_t Py_REFCNT(object value)
    void Py_DECREF(PyObject *value)

SOURCES = ASGI_BRIDGE_SOURCES.decode()
"""Digest of the sources of this build."""

cdef object REST = Rest, NOTHING = nothing, RAISING = raising


cdef object _what_is_left(object call, object chain):
    """Begin a usual call. Returns its rest, for `Call.run` to await; None: it has ended."""
    cdef object running, waits_for
    cdef PyObject *found
    cdef int how
    try:
        running = begin_run(call, chain)
        if running is not None:
            if not is_own(running):
                return running
            how = run_on(running, None, &found)
            waits_for = <object>found
            Py_DECREF(found)
            if how == YIELDED:
                return REST(running, None, waits_for)
    except BaseException as exc:
        return RAISING(exc)
    return None if end_run(call, chain) else NOTHING()


def begin_in_turn(task, future, name, list ready not None):
    """Begin calls in a task. See `call_tasks.begin_in_turn`."""
    cdef Py_ssize_t references = Py_REFCNT(task)
    cdef object weak = getweakrefcount(task)
    cdef object entry, call, owner, chain, context, left, run, waits_for
    cdef PyObject *found
    cdef int how
    while ready:
        entry = ready.pop()
        call, owner = entry
        context = PyContext_CopyCurrent()
        left = run = waits_for = None
        how = RETURNED
        try:
            PyContext_Enter(context)
            try:
                chain = usual_chain(call)
                if chain is None:
                    run = call.run(owner.ended)
                else:
                    left = _what_is_left(call, chain)
                    if left is not None:
                        run = call.run(owner.ended, left)
                if run is not None:
                    how = run_on(run, None, &found)
                    waits_for = <object>found
                    Py_DECREF(found)
            finally:
                PyContext_Exit(context)
        except BaseException as exc:
            return entry, exc, None, None, None
        if how == YIELDED:
            return entry, None, run, context, waits_for
        context = left = run = None  # what is left of the call in them is freed now
        if (
            Py_REFCNT(task) != references
            or getweakrefcount(task) != weak
            or future.done()
            or task._callbacks is not None
            or task.get_name() is not name
        ):
            return entry, None, None, None, None
    return None
