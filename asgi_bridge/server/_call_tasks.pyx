"""The steps of calls in C: the compiled twins of `begin_in_spares` and `Spare.__call__` in ``call_tasks.py``.

A usual call needs no coroutine around its plugins. `Call.run` is asked only for the rest of a call: where something went
wrong, where it owes an answer, where only a task can run it.
"""

from cpython.list cimport PyList_Append, PyList_CheckExact, PyList_GET_SIZE
from cpython.object cimport PyObject

from ..adapter._request_call cimport begin_run, end_run, is_usual, usual_chain
from ..plugins._later cimport YIELDED, is_own, run_on
from ..wire.slots cimport held, is_kind, set_slot, slot, slot_of
from ._answers cimport Answers, runs, wakes_with

from asyncio import Future, Task, _enter_task, _leave_task

from ..plugins import Chain
from .call_tasks import MAX_SPARES, NAME, CallTasks, Spare, nothing, raising

__all__ = ["SOURCES", "begin_in_spares", "go_on", "go_on_all"]

cdef extern from *:
    """
    static Py_ssize_t weak_references_of(PyObject *self) {
        Py_ssize_t count = 0;
        PyWeakReference *each;
        if (Py_TYPE(self)->tp_weaklistoffset <= 0) return -1;
        each = *(PyWeakReference **)PyObject_GET_WEAKREFS_LISTPTR(self);
        for (; each != NULL; each = each->wr_next) count++;
        return count;
    }
    static PyObject *ask_method(PyObject *method, PyObject *self) {
        return PyObject_Vectorcall(method, &self, 1, NULL);
    }
    static PyObject *tell_method(PyObject *method, PyObject *self, PyObject *value) {
        PyObject *arguments[2] = {self, value};
        return PyObject_Vectorcall(method, arguments, 2, NULL);
    }
    """
    Py_ssize_t weak_references_of(PyObject *value)
    # call a method without arguments, or with one; the object is of the method's own class
    object ask_method(object method, object self)
    object tell_method(object method, object self, object value)
    const char *ASGI_BRIDGE_SOURCES
    object PyContext_CopyCurrent()
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    Py_ssize_t references_of "Py_REFCNT"(PyObject *value)
    void Py_DECREF(PyObject *value)

SOURCES = ASGI_BRIDGE_SOURCES.decode()
"""Digest of the sources of this build."""

cdef object no = False, FREE = NAME
cdef Py_ssize_t MOST = MAX_SPARES
cdef object SPARE = Spare, CALL_TASKS = CallTasks
cdef object NOTHING = nothing, RAISING = raising, FUTURE = Future, TASK = Task, ENTER = _enter_task, LEAVE = _leave_task
cdef object DONE = Future.done, GET_NAME = Task.get_name, SET_NAME = Task.set_name
cdef Py_ssize_t CALL = slot_of(Spare, "call"), OWNER = slot_of(Spare, "owner"), RUN = slot_of(Spare, "run")
cdef Py_ssize_t CHAIN = slot_of(Spare, "chain"), WAITS_FOR = slot_of(Spare, "waits_for")
cdef Py_ssize_t ITS_FUTURE = slot_of(Spare, "future"), ITS_TASK = slot_of(Spare, "task")
cdef Py_ssize_t TASKS = slot_of(Spare, "tasks"), CONTEXT = slot_of(Spare, "context")
cdef Py_ssize_t REFERENCES = slot_of(Spare, "references"), WEAK = slot_of(Spare, "weak")
cdef Py_ssize_t NAME_OF = slot_of(Spare, "name")
cdef Py_ssize_t SPARES = slot_of(CallTasks, "spares"), CLOSED = slot_of(CallTasks, "closed")
cdef Py_ssize_t WOKEN = slot_of(CallTasks, "woken")
cdef Py_ssize_t NAMES = slot_of(Chain, "names")
cdef Py_ssize_t LOOP = slot_of(CallTasks, "loop")


cdef object _loop_of(object spare):
    """Return the event loop of a spare, whose slots may be read and written then.

    Raises:
        TypeError: It is none.
    """
    cdef object tasks
    if not is_kind(spare, SPARE):
        raise TypeError(f"{type(spare).__name__} is no Spare")
    tasks = held(spare, TASKS)
    if type(tasks) is not CALL_TASKS:
        raise TypeError(f"{type(tasks).__name__} is no CallTasks")
    return held(tasks, LOOP)


# what a call waits for that has asked the gateway


cdef int _wake(object spare, Answers answers) except -1:
    """Let a spare go on in the next turn of the event loop."""
    cdef object loop = _loop_of(spare), woken = held(held(spare, TASKS), WOKEN)
    if not PyList_CheckExact(woken):
        raise TypeError(f"{type(woken).__name__} is no list")
    if not PyList_GET_SIZE(woken):
        loop.call_soon(GO_ON_ALL, held(spare, TASKS))
    PyList_Append(woken, (spare, answers))
    return 0


def go_on_all(tasks):
    """Go on with the calls whose answers have come."""
    cdef object woken, spare, answers, context
    if type(tasks) is not CALL_TASKS:
        raise TypeError(f"{type(tasks).__name__} is no CallTasks")
    woken = held(tasks, WOKEN)
    set_slot(tasks, WOKEN, [])
    woken.reverse()
    try:
        while woken:
            spare, answers = woken.pop()
            context = held(spare, CONTEXT) if is_kind(spare, SPARE) else None
            if context is None:  # the task runs the call
                continue
            PyContext_Enter(context)
            try:
                _go_on(spare, answers)
            finally:
                PyContext_Exit(context)
    finally:
        if woken:  # an exception is about to end the loop: the other calls go on if the loop runs again
            woken.reverse()
            set_slot(tasks, WOKEN, woken)
            tasks.loop.call_soon(GO_ON_ALL, tasks)


cdef object GO_ON_ALL = go_on_all
wakes_with(_wake)


# steps


cdef object _step(object call, object owner, object chain, object running, PyObject **found, bint *usual):
    """Make a step of a call. Returns what is to be run on then.

    Args:
        call: The call.
        owner: Whose it is.
        chain: Its chain, if it is a usual call; None: `Call.run` runs it.
        running: What is to be run on; None: the call has not begun.
        found: Gets what the call waits for: a new reference. It stays NULL if the call has ended.
        usual: Gets whether it still is a usual call.
    """
    cdef object left = None
    cdef bint owned = True
    if chain is not None:
        try:
            if running is None:
                running = begin_run(call, chain)
                owned = running is None or is_own(running)
            if running is not None and owned:
                if run_on(running, None, found) == YIELDED:
                    usual[0] = True
                    return running
                Py_DECREF(found[0])
                found[0] = NULL
        except BaseException as exc:
            running = None
            left = RAISING(exc)
        else:
            if not owned:
                left = running
            elif end_run(call, chain, owner):
                return None
            else:
                left = NOTHING()
        running = call.run(owner.ended, left)
    elif running is None:
        running = call.run(owner.ended)
    if run_on(running, None, found) == YIELDED:
        return running
    Py_DECREF(found[0])
    found[0] = NULL
    return None


cdef bint _is_done(object spare) except -1:
    """Return whether the future of a spare is done: whether somebody has cancelled its task."""
    cdef object future = held(spare, ITS_FUTURE)
    return ask_method(DONE, future) if type(future) is FUTURE else future.done()


cdef int _name(object spare, object name) except -1:
    """Name the task of a spare."""
    cdef object task = held(spare, ITS_TASK)
    if type(task) is TASK:
        tell_method(SET_NAME, task, name)
    else:
        task.set_name(name)
    return 0


cdef int _wait(object spare, object loop, object run, object waits_for) except -1:
    """Go on when the call does not have to wait any more. See `Spare.wait`."""
    cdef object kind = type(waits_for)
    if kind is Answers and not _is_done(spare) and (<Answers>waits_for).wakes(spare, loop):
        set_slot(spare, RUN, run)
        set_slot(spare, WAITS_FOR, waits_for)
        return 0
    if (kind is FUTURE or kind is TASK) and slot(spare, ITS_TASK) is not <PyObject *>waits_for:
        if waits_for._asyncio_future_blocking and waits_for.get_loop() is loop and not _is_done(spare):
            set_slot(spare, RUN, run)
            set_slot(spare, WAITS_FOR, waits_for)
            waits_for._asyncio_future_blocking = False
            waits_for.add_done_callback(spare, context=held(spare, CONTEXT))
            return 0
    spare.wait(run, waits_for)
    return 0


cdef int _keep(object tasks, object spare) except -1:
    """Take a spare that is free. See `CallTasks.keep`."""
    cdef object spares = held(tasks, SPARES)
    if PyList_CheckExact(spares) and PyList_GET_SIZE(spares) < MOST and slot(tasks, CLOSED) is <PyObject *>no:
        PyList_Append(spares, spare)
    else:
        tasks.keep(spare)
    return 0


cdef bint _is_as_it_was(object spare, Py_ssize_t references, Py_ssize_t weak, object name) except -1:
    """Return whether nothing of a call is left on the task. See `Spare.is_as_it_was`."""
    cdef PyObject *there = slot(spare, ITS_TASK)
    cdef object task
    if there is NULL or references_of(there) != references or weak_references_of(there) != weak:
        return False
    task = <object>there
    return not _is_done(spare) and task._callbacks is None and (
        ask_method(GET_NAME, task) if type(task) is TASK else task.get_name()
    ) is name


def begin_in_spares(tasks, list ready not None):
    """Begin calls, as long as there are spares. See `call_tasks.begin_in_spares`."""
    cdef object spares, spare, loop
    while ready:
        if type(tasks) is not CALL_TASKS:
            raise TypeError(f"{type(tasks).__name__} is no CallTasks")
        spares = held(tasks, SPARES)
        if not spares:
            return
        spare = spares.pop()
        loop = _loop_of(spare)
        if _is_done(spare):
            continue
        ENTER(loop, held(spare, ITS_TASK))
        runs(spare)
        try:
            _begin_in_turn(spare, loop, ready)
        finally:
            runs(None)
            LEAVE(loop, held(spare, ITS_TASK))
            if slot(spare, CALL) is <PyObject *>None and not _is_done(spare):
                _keep(tasks, spare)
            elif not spares:
                tasks.make_spare()


cdef int _begin_in_turn(object spare, object loop, list ready) except -1:
    cdef object name = held(spare, NAME_OF)
    cdef Py_ssize_t references = references_of(slot(spare, ITS_TASK)), weak = weak_references_of(slot(spare, ITS_TASK))
    cdef object call, owner, chain, context, run, waits_for
    cdef PyObject *found
    cdef bint usual = False
    while ready:
        call, owner = ready.pop()
        context = PyContext_CopyCurrent()
        found = NULL
        try:
            PyContext_Enter(context)
            try:
                chain = usual_chain(call)
                run = _step(call, owner, chain, None, &found, &usual)
            finally:
                PyContext_Exit(context)
        except BaseException as exc:
            spare.let_go_after(call, exc)
            return 0
        if found is not NULL:
            waits_for = <object>found
            Py_DECREF(found)
            set_slot(spare, REFERENCES, references)
            set_slot(spare, WEAK, weak)
            set_slot(spare, CHAIN, chain if usual else None)
            if not usual or slot(chain, NAMES) is NULL:
                spare.take(call, owner, context)
            else:
                set_slot(spare, CALL, call)
                set_slot(spare, OWNER, owner)
                set_slot(spare, CONTEXT, context)
                name = held(chain, NAMES)
                set_slot(spare, NAME_OF, name)
                _name(spare, name)
            _wait(spare, loop, run, waits_for)
            owner.note_task(call, spare.task)
            return 0
        context = None  # what is left of the call in it is freed now
        if not _is_as_it_was(spare, references, weak, name):
            spare.let_go_after(call)
            return 0
    return 0


cdef object _go_on(object spare, object waited):
    cdef object loop = _loop_of(spare), run = held(spare, RUN), call, chain, waits_for
    cdef PyObject *found = NULL
    cdef bint usual = False
    if run is None or slot(spare, WAITS_FOR) is not <PyObject *>waited or _is_done(spare):
        return
    call = held(spare, CALL)
    chain = held(spare, CHAIN)
    set_slot(spare, RUN, None)
    set_slot(spare, WAITS_FOR, None)
    if chain is not None and not is_usual(call, chain):
        return spare.hand_over(RAISING(TypeError("the call is not what it was")))
    ENTER(loop, held(spare, ITS_TASK))
    runs(spare)
    try:
        try:
            run = _step(call, held(spare, OWNER), chain, run, &found, &usual)
        except BaseException as exc:
            run = None
            set_slot(spare, CHAIN, None)
            spare.hand_over(RAISING(exc))
            return
        if not usual:
            set_slot(spare, CHAIN, None)
        if found is not NULL:
            waits_for = <object>found
            Py_DECREF(found)
            _wait(spare, loop, run, waits_for)
            return
        set_slot(spare, CALL, None)
        set_slot(spare, OWNER, None)
        set_slot(spare, CONTEXT, None)
        if _is_as_it_was(spare, held(spare, REFERENCES), held(spare, WEAK), held(spare, NAME_OF)):
            set_slot(spare, NAME_OF, FREE)
            _name(spare, FREE)
            _keep(held(spare, TASKS), spare)
        else:
            spare.let_go_after(call)
    finally:
        runs(None)
        LEAVE(loop, held(spare, ITS_TASK))


def go_on(spare, waited):
    """Run the next step of a call, whose context is the current one. See `Spare.__call__`."""
    return _go_on(spare, waited)
