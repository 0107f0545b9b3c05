"""The way through the layers in C: compiled twins of `Layer.begin`, and of `pass_on` and `upstream` in
``extension.py``.

They do what is usual, and leave all else to the pure twins: layers of other classes, plugins that are passed over after
a fault, a `root_path`, lifespans that give the same key, and a plugin that hands on a `receive` of its own.
"""

from cython cimport final
from cpython.dict cimport PyDict_CheckExact, PyDict_Copy, PyDict_SetItem, PyDict_Size, PyDict_Update
from cpython.list cimport PyList_CheckExact, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from ..wire.items cimport AT_EXTENSIONS, AT_HEADERS, AT_PHASE, AT_STATE, AT_TYPE, AT_VAR, item_at, value_at
from ..wire.lists cimport copy_from
from ..wire.slots cimport held, is_kind, method_of, set_slot, slot, slot_of
from ._later cimport Later, is_own

from sys import intern

from .call import ChainCall
from .chain import Chain
from .extension import Apisix, current, pass_on as pass_on_in_python
from .layer import Layer, awaiting
from .lifespan import quiet_lifespan
from .options import Options
from .state import States

__all__ = ["SOURCES", "begin", "new_upstream", "pass_on"]

cdef extern from *:
    """
    static PyObject *call_name;
    /* Call an ASGI application. To call an object whose class has a `__call__` in Python packs its arguments into a
       tuple, and takes them out again; the method itself can be called without that. */
    static PyObject *call_app(PyObject *app, PyObject *scope, PyObject *receive, PyObject *send) {
        PyObject *arguments[4] = {app, scope, receive, send};
        PyObject *method = Py_TYPE(app)->tp_call == NULL ? NULL : _PyType_Lookup(Py_TYPE(app), call_name);
        PyObject *result;
        if (method == NULL || !PyFunction_Check(method)) return PyObject_Vectorcall(app, arguments + 1, 3, NULL);
        Py_INCREF(method);
        result = PyObject_Vectorcall(method, arguments, 4, NULL);
        Py_DECREF(method);
        return result;
    }
    static inline PyObject *function_of(PyObject *method) {
        return Py_NewRef(PyMethod_Check(method) ? PyMethod_GET_FUNCTION(method) : Py_None);
    }
    static inline int is_method(PyObject *value, PyObject *function, PyObject *self) {
        return PyMethod_Check(value) && PyMethod_GET_FUNCTION(value) == function && PyMethod_GET_SELF(value) == self;
    }
    static PyObject *new_of(PyObject *type, PyObject *arguments) {
        return ((PyTypeObject *)type)->tp_new((PyTypeObject *)type, arguments, NULL);
    }
    """
    const char *ASGI_BRIDGE_SOURCES
    PyObject *call_name
    # None: it is no method
    object function_of(object method)
    bint is_method(PyObject *value, object function, object self) noexcept
    object call_app(object app, object scope, object receive, object send)
    object new_of(object type, tuple arguments)
    object PyContextVar_Set(object variable, object value)
    int PyContextVar_Reset(object variable, object token) except -1

SOURCES = ASGI_BRIDGE_SOURCES.decode()
"""Digest of the sources of this build."""

cdef object LAYER = Layer, OPTION = Options, CHAIN = Chain
cdef object APISIX = Apisix, CALL = ChainCall, STATES = States, CURRENT = current
cdef object BEGIN_IN_PYTHON = Layer.begin, ENTER = ChainCall.enter
cdef object AWAITING = awaiting, LIFESPAN = quiet_lifespan, MISSING = object()
cdef tuple NOTHING = ()
cdef str HTTP = intern("http")
cdef str the_call = intern("__call__")
call_name = <PyObject *>the_call

cdef object closed = Options().on_error
cdef PyObject *CLOSED = <PyObject *>closed
cdef object no = False
cdef str no_root = ""
cdef PyObject *NO_ROOT = <PyObject *>no_root

cdef Py_ssize_t ENTRIES = slot_of(LAYER, "_entries"), APP = slot_of(LAYER, "app"), INNER = slot_of(LAYER, "inner")
cdef Py_ssize_t OPTIONS = slot_of(LAYER, "options"), ROOT = slot_of(LAYER, "root"), NAME = slot_of(LAYER, "name")
cdef Py_ssize_t CHANGES_BODY = slot_of(OPTION, "request_body")
cdef Py_ssize_t OPEN = slot_of(OPTION, "on_error"), TIMEOUT = slot_of(OPTION, "timeout")
cdef Py_ssize_t OF_CALL = slot_of(CALL, "chain"), OF_CHAIN = slot_of(CHAIN, "states")
cdef Py_ssize_t ONLY_STATE = slot_of(CHAIN, "only_state")
cdef Py_ssize_t EACH = slot_of(STATES, "_states"), KEPT_APART = slot_of(STATES, "apart")
cdef Py_ssize_t OWNER = slot_of(APISIX, "_call"), EARLIER = slot_of(APISIX, "_earlier")
cdef Py_ssize_t ENTERED = slot_of(APISIX, "_entered"), OF_LAYER = slot_of(APISIX, "_layer")
cdef Py_ssize_t RECEIVE = slot_of(APISIX, "_receive"), SEND = slot_of(APISIX, "_send")
cdef Py_ssize_t APART = slot_of(CALL, "apart"), DEADLINE = slot_of(CALL, "deadline")
cdef Py_ssize_t EXTENSION = slot_of(CALL, "extension"), OVERDUE = slot_of(CALL, "overdue")
cdef Py_ssize_t REQUEST_ID = slot_of(CALL, "request_id"), STATE = slot_of(CALL, "state")

cdef object usual_class = None
"""The class of the last call, if it is a ChainCall with its own `enter`."""
cdef object known_class = None
"""A class whose `innermost` is `innermost_of_known`, so that nobody has to look for it."""
cdef Innermost innermost_of_known = NULL
cdef object phase_of_known = None
"""The `phase` of its calls."""
cdef object last_var = None
"""The function of the method `var` that was made last."""


cdef int goes_on_with(object kind, Innermost function) except -1:
    """Call a function of C in place of `innermost`, for the calls of a class.

    Args:
        kind: The class. Its calls go through all layers, and all have the phase that it says.
        function: Does what its `innermost` does.
    """
    global known_class, innermost_of_known, phase_of_known
    known_class = kind
    innermost_of_known = function
    phase_of_known = kind.phase
    return 0


cdef inline bint _is_usual(object call) except -1:
    global usual_class
    cdef object kind = type(call)
    if kind is usual_class:
        return True
    if not is_kind(call, CALL) or kind.enter is not ENTER:
        return False
    usual_class = kind
    return True


cdef dict _first_state(list each):
    """Do what `States.begin` does, where no key is kept apart; None: something is unusual."""
    cdef dict state = None
    cdef Py_ssize_t index = 0
    cdef object source
    while index < PyList_GET_SIZE(each):  # to fill a dict may run a finalizer, which may do anything
        source = <object>PyList_GET_ITEM(each, index)
        index += 1
        if not PyDict_CheckExact(source):
            return None
        if state is None:
            state = PyDict_Copy(source)
        elif PyDict_Size(source):
            PyDict_Update(state, source)
    return state


cdef object state_of(object call, object scope, bint *has_state):
    """Return the state that the layer's scope gets; None: something is unusual.

    Args:
        call: The call that enters the layer.
        scope: As the layer got it; None: it has no state yet.
        has_state: Gets whether it is in that scope already.
    """
    cdef object chain, states, each, found
    cdef PyObject *there
    has_state[0] = False
    if slot(call, STATE) is NULL:
        return None
    found = held(call, STATE)
    if found is None:
        chain = held(call, OF_CALL)
        if type(chain) is not CHAIN:
            return None
        found = held(chain, ONLY_STATE)
        if PyDict_CheckExact(found):
            found = PyDict_Copy(found)
        else:
            states = held(chain, OF_CHAIN)
            if type(states) is not STATES or slot(states, KEPT_APART) is not <PyObject *>None:
                return None
            each = held(states, EACH)
            found = _first_state(each) if PyList_CheckExact(each) else None
            if found is None:
                found = states.begin()
        set_slot(call, STATE, found)
        set_slot(call, APART, None)
        return found
    if slot(call, APART) is not <PyObject *>None:
        return None
    if scope is not None:
        # an outer plugin may have put another object in its place, or made its scope anew without any
        there = item_at(scope, AT_STATE, "state")
        if there is not NULL:
            found = <object>there
            has_state[0] = True
    return found if PyDict_CheckExact(found) else None


cdef bint is_usual_layer(object layer) except -1:
    """Return whether `begin_layer` may begin this layer."""
    cdef object options
    if type(layer) is not LAYER or slot(layer, ROOT) is not NO_ROOT or slot(layer, OPTIONS) is NULL:
        return False
    options = held(layer, OPTIONS)
    return type(options) is OPTION and slot(options, OPEN) is CLOSED


cdef object _var_of(object call):
    """Return the call's `var`, out of the extension of the layer entered before, where it is there as it was made."""
    global last_var
    cdef PyObject *earlier = slot(call, EXTENSION)
    cdef PyObject *var
    if earlier is not NULL and type(<object>earlier) is APISIX:
        var = item_at(<object>earlier, AT_VAR, "var")
        if var is not NULL and is_method(var, last_var, call):
            return <object>var
    found = method_of(call, "var")
    last_var = function_of(found)
    return found


cdef object begin_layer(
    object layer, object call, object state, bint has_state, dict inner, object extensions, list headers, object receive,
    object send, object passing,
):
    """Begin to run the plugin of a usual layer.

    Args:
        layer: The layer.
        call: The call that goes through it.
        state: What `state_of` has returned.
        has_state: Whether it is in the scope already.
        inner: The layer's own copy of the scope, to which the rest is added here.
        extensions: Those of the scope as the layer got it; None: it has none.
        headers: Those of the scope as the layer got it.
        receive, send: As the layer got them.
        passing: A `Passing`, which gets what it needs to leave the context as it was; None: nobody needs that.

    Returns:
        What the plugin's application returns.
    """
    cdef object extension, now, value
    cdef double deadline
    cdef timespec clock
    clock_gettime(CLOCK_MONOTONIC, &clock)
    now = clock.tv_sec + clock.tv_nsec * 1e-9
    value = held(layer, OPTIONS)
    value = held(value, TIMEOUT) if type(value) is OPTION else value.timeout
    deadline = <double>now + <double>value
    value = held(call, DEADLINE)
    if deadline < <double>value:
        set_slot(call, DEADLINE, deadline)
        set_slot(call, OVERDUE, held(layer, NAME))
    value = held(layer, ENTRIES)
    if PyDict_CheckExact(value):  # quicker than to call the class
        extension = new_of(APISIX, NOTHING)
        PyDict_Update(extension, value)
    else:
        extension = APISIX(value)
    set_slot(extension, ENTERED, now)
    value = held(call, REQUEST_ID)
    if value is not None:
        PyDict_SetItem(extension, "request_id", value)
    value = phase_of_known if type(call) is known_class else method_of(call, "phase")
    if item_at(extension, AT_PHASE, "phase") is not <PyObject *>value:
        PyDict_SetItem(extension, "phase", value)
    PyDict_SetItem(extension, "var", _var_of(call))
    set_slot(extension, OWNER, call)
    set_slot(extension, OF_LAYER, layer)
    set_slot(extension, RECEIVE, receive)
    set_slot(extension, SEND, send)
    set_slot(extension, EARLIER, held(call, EXTENSION))
    set_slot(call, EXTENSION, extension)
    PyDict_SetItem(inner, "headers", copy_from(headers, 0))
    if PyDict_CheckExact(extensions):
        extensions = PyDict_Copy(extensions)
        PyDict_SetItem(extensions, "apisix", extension)
    else:
        extensions = {**extensions, "apisix": extension} if extensions else {"apisix": extension}
    PyDict_SetItem(inner, "extensions", extensions)
    if not has_state:
        PyDict_SetItem(inner, "state", state)
    value = PyContextVar_Set(CURRENT, extension)
    if passing is not None:
        (<Passing>passing).token = value
    return call_app(held(layer, APP), inner, receive, send)


def begin(layer, call, scope, receive, send):
    """Begin to run this layer's plugin. See `Layer.begin`."""
    cdef object state, headers, extensions
    cdef bint has_state = False
    if is_usual_layer(layer) and _is_usual(call) and PyDict_CheckExact(scope):
        headers = value_at(scope, AT_HEADERS, "headers", None)
        if PyList_CheckExact(headers):
            state = state_of(call, scope, &has_state)
            if state is not None:
                extensions = value_at(scope, AT_EXTENSIONS, "extensions", None)
                scope = PyDict_Copy(scope)
                return begin_layer(layer, call, state, has_state, scope, extensions, headers, receive, send, None)
    return BEGIN_IN_PYTHON(layer, call, scope, receive, send)


@final
cdef class Passing(Later):
    """What `upstream` returns, and the run of the next layer, once it has begun.

    It does what `Layer.enter` does: it notes out of which plugin an exception came, and leaves the context as it was.
    """

    cdef object scope, receive, respond
    # of the layer that was entered; None: none was, or it was left
    cdef object call
    cdef object layer, token

    cdef object begin(self):
        cdef object running, scope = self.scope, kind = None
        if PyDict_CheckExact(scope):
            kind = value_at(scope, AT_TYPE, "type", None)
        if kind is None:
            kind = scope["type"]
        if kind is not HTTP and kind == "lifespan":
            return LIFESPAN(scope, self.receive, self.respond)
        running = _pass_on(self, scope, self.receive, self.respond)
        return running if running is None or is_own(running) else AWAITING(running)

    cdef object ended(self, object value):
        self.leave()
        return value

    cdef int failed(self, object exc) except -1:
        cdef object call = self.call
        try:
            if call is not None:
                call.fails(exc, self.layer.name)
        finally:
            self.leave()
        return 0

    def __dealloc__(self):
        if self.token is not None:  # somebody has begun it, and dropped it: the coroutine ends first
            self.running = None
            self.failed(GeneratorExit())

    cdef int leave(self) except -1:
        """Leave the context as it was. In another one, as in the garbage collector's, that is an error."""
        cdef object token = self.token
        self.call = None
        if token is not None:
            self.token = None
            PyContextVar_Reset(CURRENT, token)
        return 0


cdef object _enter(
    Passing passing, object layer, object call, dict scope, dict extensions, object receive, object send
):
    """Begin the next layer inwards. Returns its run, to be awaited; None: it is done."""
    cdef object headers, state
    cdef bint has_state = False
    if not is_usual_layer(layer) or not _is_usual(call):
        return layer.enter(call, scope, receive, send)
    headers = value_at(scope, AT_HEADERS, "headers", None)
    state = state_of(call, scope, &has_state) if PyList_CheckExact(headers) else None
    if state is None:
        return layer.enter(call, scope, receive, send)
    passing.call = call
    passing.layer = layer
    return begin_layer(layer, call, state, has_state, PyDict_Copy(scope), extensions, headers, receive, send, passing)


cdef object _pass_on(Passing passing, object scope, object receive, object send):
    cdef object extensions, extension, call, layer, inner, options
    if not PyDict_CheckExact(scope):
        return pass_on_in_python(scope, receive, send)
    extensions = value_at(scope, AT_EXTENSIONS, "extensions", None)
    if not PyDict_CheckExact(extensions):
        return pass_on_in_python(scope, receive, send)
    extension = value_at(extensions, 0, "apisix", None)
    if type(extension) is not APISIX:
        return pass_on_in_python(scope, receive, send)
    layer = held(extension, OF_LAYER)
    if type(layer) is not LAYER or slot(layer, ROOT) is not NO_ROOT:
        return pass_on_in_python(scope, receive, send)
    if slot(extension, RECEIVE) is NULL or slot(extension, SEND) is NULL:  # a plugin has deleted it
        return pass_on_in_python(scope, receive, send)
    inner = held(layer, INNER)
    if slot(extension, RECEIVE) is not <PyObject *>receive:
        options = held(layer, OPTIONS)
        if inner is not None or type(options) is not OPTION or slot(options, CHANGES_BODY) is not <PyObject *>no:
            return pass_on_in_python(scope, receive, send)
    call = held(extension, OWNER)
    if slot(extension, SEND) is not <PyObject *>send:
        call.wraps_send(layer)
    if type(call) is known_class:
        if inner is None:
            return innermost_of_known(call, scope, receive, send)
    elif inner is None or inner is call.boundary:
        return call.innermost(scope, receive, send)
    return _enter(passing, inner, call, scope, extensions, receive, send)


cdef Passing _passing(object scope, object receive, object send):
    cdef Passing made = Passing.__new__(Passing)
    made.scope = scope
    made.receive = receive
    made.respond = send
    return made


def pass_on(scope, receive, send):
    """Pass the request on, once the result is awaited. See `extension.pass_on`."""
    return _passing(scope, receive, send)


def new_upstream():
    """Return a function that does what `upstream` does. See `extension.new_next`."""
    def upstream(scope, receive, send):
        """Pass the request on, once it is awaited. See `extension.upstream`."""
        return _passing(scope, receive, send)
    return upstream
