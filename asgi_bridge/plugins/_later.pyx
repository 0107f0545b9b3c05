"""Awaitables in C, without a frame of Python code: what `upstream`, `send` and `var` return, and the run of a layer."""

from cpython.object cimport PyObject

from .layer import awaiting

__all__ = ["SOURCES"]

cdef extern from *:
    const char *ASGI_BRIDGE_SOURCES
    # makes no StopIteration for a coroutine that ends
    int PyIter_Send(object coroutine, object value, PyObject **result)
    bint PyCoro_CheckExact(object value)
    Py_ssize_t Py_REFCNT(object value)
    void Py_INCREF(object value)
    void Py_DECREF(PyObject *value)
    int PyErr_WarnEx(object category, const char *message, Py_ssize_t level) except -1

SOURCES = ASGI_BRIDGE_SOURCES.decode()
"""Digest of the sources of this build."""

cdef object AWAITING = awaiting


cdef bint is_own(object running) noexcept:
    """Return whether `run_on` may run this: a coroutine that nobody else has, who may await it elsewhere."""
    return PyCoro_CheckExact(running) and Py_REFCNT(running) == 1


cdef int run_on(object running, object value, PyObject **found) except -1:
    """Run a coroutine on. Returns whether it has ended, or waits for something.

    Args:
        running: The coroutine.
        value: What it gets.
        found: Gets what it has returned, or waits for: a new reference.
    """
    cdef int how = PyIter_Send(running, value, found)
    return how if how == RETURNED or how == YIELDED else -1


cdef object sent(int how, PyObject *found):
    """Return what `send` of a coroutine returns after a step. Raises StopIteration if the step was the last one.

    Args:
        how: What `run_on` has returned.
        found: What it has found: the reference is taken.
    """
    result = <object>found
    Py_DECREF(found)
    if how == YIELDED:
        return result
    if result is None:
        raise StopIteration
    raise StopIteration(result)


cdef class Later:
    """What C has in place of a coroutine: it begins when it is awaited, and nothing runs it after its end.

    A subclass says what it does.
    """

    cdef object begin(self):
        """Begin. Returns the coroutine that is to be run on; None: it has ended."""

    cdef object ended(self, object value):
        """Return its result.

        Args:
            value: What the coroutine has returned; None: it has ended at once.
        """
        return value

    cdef int failed(self, object exc) except -1:
        """Note that it has raised."""
        return 0

    def __await__(self):
        if self.waits:
            raise RuntimeError("coroutine is being awaited already")
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """Run on, as a coroutine does."""
        cdef PyObject *found = NULL
        cdef int how = self.step(value, &found)
        return sent(how, found)

    def throw(self, *exception):
        """Raise an exception where it waits, as a coroutine does."""
        cdef object running
        if not self.begun:
            self.begun = self.over = True
            return AWAITING(None).throw(*exception)
        running = self.taken()
        try:
            result = running.throw(*exception)
        except StopIteration as exc:
            self.over = True
            result = self.ended(exc.value)
            if result is exc.value:
                raise
            raise StopIteration(result) from None
        except BaseException as exc:
            self.over = True
            self.failed(exc)
            raise
        self.running = running
        self.waits = True
        return result

    def close(self):
        """End it, as a coroutine does."""
        cdef object running
        if self.over or not self.begun:
            self.begun = self.over = True
            return
        running = self.taken()
        self.over = True
        try:
            close = getattr(running, "close", None)  # not all that is awaited has it
            if close is not None:
                close()
        except BaseException as exc:
            self.failed(exc)
            raise
        self.failed(GeneratorExit())

    cdef object taken(self):
        """Return the coroutine, which is about to run."""
        cdef object running = self.running
        if running is None:  # as a coroutine says it
            if self.over:
                raise RuntimeError("cannot reuse already awaited coroutine")
            raise ValueError("coroutine already executing")
        self.running = None
        self.waits = False
        return running

    cdef int step(self, object value, PyObject **found) except -1:
        cdef object running = None, result = None
        cdef int how = RETURNED
        found[0] = NULL  # as it has to be after an error
        if self.begun:
            running = self.taken()
        else:
            if value is not None:
                raise TypeError("can't send non-None value to a just-started coroutine")
            self.begun = True
        try:
            if running is None:
                running = self.begin()
            if running is not None:
                how = run_on(running, value, found)
                result = <object>found[0]
                Py_DECREF(found[0])
                found[0] = NULL
        except BaseException as exc:
            self.over = True
            self.failed(exc)
            raise
        if how == RETURNED:
            self.over = True
            result = self.ended(result)
        else:
            self.running = running
            self.waits = True
        Py_INCREF(result)
        found[0] = <PyObject *>result
        return how

    def __dealloc__(self):
        if not self.begun:
            PyErr_WarnEx(RuntimeWarning, b"a call of upstream, send or var was never awaited", 1)

    # what asyncio and anyio look at

    @property
    def __name__(self):
        return type(self).__name__

    @property
    def __qualname__(self):
        return type(self).__qualname__

    @property
    def cr_running(self):
        return self.begun and not self.over and self.running is None

    @property
    def cr_suspended(self):
        return self.running is not None

    @property
    def cr_await(self):
        return self.running

    @property
    def cr_frame(self):
        return None

    @property
    def cr_code(self):
        return None


cdef int _send(Later self, object value, PyObject **found) except -1:
    return self.step(value, found)


run_with(Later, <void *>_send)
