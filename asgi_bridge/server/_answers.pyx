"""What a call waits for that has asked the gateway, in C: `RunnerProtocol.ask` returns it in place of a future.

A future would cost as much as the rest of asking. The spare that runs the call needs none: it is told when the answers
have come, and goes on in the next turn of the event loop, with all others that were told so in this one. Whoever else
waits for the answers, or looks at them as at a future, gets one, which is made then.
"""

from cython cimport final
from cpython.object cimport PyObject

from ..plugins._later cimport RETURNED, YIELDED, run_with, sent

__all__ = ["SOURCES", "answers"]

cdef extern from *:
    const char *ASGI_BRIDGE_SOURCES
    void Py_INCREF(object value)

SOURCES = ASGI_BRIDGE_SOURCES.decode()
"""Digest of the sources of this build."""

# The spare that makes a step of its call; None: no one does.
cdef object running_spare = None
# What lets a spare go on.
cdef Wake wake = NULL


cdef void runs(object spare) noexcept:
    """Note which spare makes a step of its call from now on; None: no one does."""
    global running_spare
    running_spare = spare


cdef void wakes_with(Wake function) noexcept:
    """Let a function wake the spares that wait."""
    global wake
    wake = function


@final
cdef class Answers:
    """The answers to what a call has asked for, once they have come."""

    cdef bint wakes(self, object spare, object loop) except -1:
        """Note a spare that they wake when they come. Returns False if they cannot."""
        if self.come or not self.waits or self.future is not None or self.loop is not loop:
            return False
        self.spare = spare
        return True

    cdef int arrive(self, list results, object error) except -1:
        """Take the answers, or the error in their place."""
        cdef object spare = self.spare
        if self.come:
            return 0
        self.come = True
        self.results, self.error = results, error
        if self.future is not None:
            self._tell_future()
        if spare is not None:
            self.spare = None
            wake(spare, self)
        return 0

    cdef object as_future(self):
        """Return a future of them."""
        if self.future is None:
            self.future = self.loop.create_future()
            if self.come:
                self._tell_future()
            elif self.waits:  # who asks is what has got this object, as an awaited future
                self.future._asyncio_future_blocking = True
        return self.future

    def _tell_future(self):
        future = self.future
        if future.done():
            return
        if self.error is None:
            future.set_result(self.results)
        else:
            future.set_exception(self.error)
            future.exception()  # no warning if nobody awaits the future any more

    # as an awaitable

    def __await__(self):
        if self.begun:
            return self.as_future().__await__()
        self.begun = True
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """Run on, as a coroutine does."""
        cdef PyObject *found = NULL
        cdef int how = self.step(&found)
        return sent(how, found)

    def throw(self, kind, value=None, traceback=None):
        """Raise an exception where it waits, as a future's iterator does: a StopIteration ends the waiting."""
        self.begun = self.over = True
        self.waits = False
        self.spare = None
        if isinstance(value, BaseException):
            kind = value
        elif isinstance(kind, type):
            kind = kind() if value is None else kind(value)
        raise kind if traceback is None else kind.with_traceback(traceback)

    cdef int step(self, PyObject **found) except -1:
        cdef object result
        found[0] = NULL
        if self.over:
            raise RuntimeError("cannot reuse already awaited coroutine")
        if not self.come and not self.waits:
            self.waits = True
            if running_spare is None or self.future is not None:
                result = self.as_future()
                result._asyncio_future_blocking = True
            else:
                result = self
            Py_INCREF(result)
            found[0] = <PyObject *>result
            return YIELDED
        self.waits = False
        self.over = True
        if not self.come:
            if self.future is None or not self.future.done():
                raise RuntimeError("await wasn't used with future")
            result = self.future.result()
        elif self.error is not None:
            raise self.error
        else:
            result = self.results
        Py_INCREF(result)
        found[0] = <PyObject *>result
        return RETURNED

    # as a future

    @property
    def _asyncio_future_blocking(self):
        return self.as_future()._asyncio_future_blocking

    @_asyncio_future_blocking.setter
    def _asyncio_future_blocking(self, value):
        self.as_future()._asyncio_future_blocking = value

    def done(self):
        """Return whether they have come."""
        return self.come or (self.future is not None and self.future.done())

    def set_result(self, list results not None):
        """Take the answers."""
        self.arrive(results, None)

    def set_exception(self, error not None):
        """Take the error that comes in place of the answers."""
        self.arrive(None, error)

    def exception(self):
        """Return the error that has come in place of the answers."""
        return self.error if self.come else self.as_future().exception()

    def __getattr__(self, name):
        return getattr(self.as_future(), name)


cdef int _send(Answers self, object value, PyObject **found) except -1:
    return self.step(found)


run_with(Answers, <void *>_send)


cdef Answers new_answers(object loop):
    """Return answers that have not come."""
    cdef Answers made = Answers.__new__(Answers)
    made.loop = loop
    return made


def answers(loop):
    """Return answers that have not come. See `new_answers`."""
    return new_answers(loop)
