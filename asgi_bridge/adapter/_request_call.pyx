"""A request call in C: compiled twins of what `RequestCall` and `Call` do in every call.

They do what is usual, and leave all else to the pure twins: calls of other classes, calls that ask for something first
or are parked, anything to warn of, anything that goes wrong.
"""

from cython cimport final
from cpython.bytes cimport PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_CheckExact
from cpython.list cimport PyList_CheckExact, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_SIZE
from libc.string cimport memcmp

from ..wire._unread cimport arguments_of
from ..wire.items cimport AT_BODY, AT_HEADERS_OF_RESPONSE, AT_STATUS, AT_TYPE, value_at
from ..wire.slots cimport first_in_slot, held, is_kind, method_of, new_empty, number_of, set_slot, slot, slot_of
from ..plugins._later cimport Later
from ..plugins._layers cimport begin_layer, goes_on_with, is_usual_layer, state_of
from ._headers cimport checked_list, usual_differences, usual_response_headers, usual_stop
from ._request_scope cimport usual_scope

from ..apisix_constants import CLOSING_STATUSES
from ..errors import LocalProtocolError, PluginError
from ..plugins import Chain, Layer
from ..plugins.options import Options
from ..wire import MAX_PAYLOAD, HTTPReqCallReq, HTTPReqCallResp, Rewrite
from .call import YIELD_EVERY, Call, Host
from .request import MAX_HEADERS, NO_CHANGE, RequestCall, send_empty
from .sent import Sent
from .stage import ANSWERED, GONE, RUNNING

__all__ = ["SOURCES", "begin", "innermost", "new_request_call", "send", "wraps_send"]

cdef extern from *:
    bint PyUnicode_IS_COMPACT_ASCII(object text) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(object text) noexcept
    void *PyUnicode_DATA(object text) noexcept
    const char *ASGI_BRIDGE_SOURCES

SOURCES = ASGI_BRIDGE_SOURCES.decode()
"""Digest of the sources of this build."""

cdef object CALL = RequestCall, MESSAGE = HTTPReqCallReq, RESPONSE = HTTPReqCallResp, SENT = Sent, CHAINS = Chain
cdef object HOSTS = Host, LAYER = Layer, OPTIONS = Options, REWRITES = Rewrite, MISSING = object()
cdef object closed = Options().on_error
cdef object BEGIN_IN_PYTHON = RequestCall._begin, INNERMOST_IN_PYTHON = RequestCall.innermost
cdef object SEND_IN_PYTHON = Call.send, WRAPS_SEND_IN_PYTHON = Call.wraps_send
cdef object is_running = RUNNING, is_answered = ANSWERED, is_gone = GONE, yes = True, no = False, nothing = b""
cdef list OUTCOMES = [f"stop {status}" for status in range(1000)]
cdef object UNCHANGED = NO_CHANGE
# A status → whether nginx closes the client's connection on it.
cdef bint[1000] IS_CLOSING
for number in range(1000):
    IS_CLOSING[number] = number in CLOSING_STATUSES
cdef Py_ssize_t MOST_HEADERS = MAX_HEADERS, LONGEST = MAX_PAYLOAD
cdef long TURN = YIELD_EVERY

cdef Py_ssize_t ID = slot_of(MESSAGE, "id"), METHOD = slot_of(MESSAGE, "method"), PATH = slot_of(MESSAGE, "path")
cdef Py_ssize_t SRC_IP = slot_of(MESSAGE, "src_ip")
cdef Py_ssize_t HEADERS = slot_of(MESSAGE, "headers")
cdef Py_ssize_t ANSWER_ID = slot_of(RESPONSE, "id"), ACTION = slot_of(RESPONSE, "action")
cdef Py_ssize_t CHAIN = slot_of(CALL, "chain"), CONNECTION = slot_of(CALL, "_connection"), HOST = slot_of(CALL, "_host")
cdef Py_ssize_t OVERDUE = slot_of(CALL, "overdue"), BEFORE = slot_of(CALL, "_before")
cdef Py_ssize_t REQUEST = slot_of(CALL, "_message"), MESSAGES = slot_of(CALL, "_messages")
cdef Py_ssize_t REWRITE = slot_of(CALL, "_rewrite")
cdef Py_ssize_t CHANGED_BODY = slot_of(CALL, "changed_body"), PARKING = slot_of(CALL, "parking")
cdef Py_ssize_t STAGE = slot_of(CALL, "stage"), HAS_SENT = slot_of(CALL, "sent"), FAULTS = slot_of(CALL, "faults")
cdef Py_ssize_t BODY = slot_of(CALL, "request_body")
cdef Py_ssize_t NAMES = slot_of(Chain, "names"), EXACT = slot_of(Chain, "exact"), BOTH = slot_of(Chain, "both")
cdef Py_ssize_t FOR_REQUESTS = slot_of(Chain, "request"), LAYERS = slot_of(Chain, "layers")
cdef Py_ssize_t CURES = slot_of(Chain, "cures"), CALLS = slot_of(Chain, "calls")
cdef Py_ssize_t IDLE = slot_of(Chain, "_idle")
cdef Py_ssize_t FAILED = slot_of(CALL, "failed"), TASK = slot_of(CALL, "task")
cdef Py_ssize_t EXTENSION = slot_of(CALL, "extension"), STATE = slot_of(CALL, "state"), APART = slot_of(CALL, "apart")
cdef Py_ssize_t ASK_ORIGIN = slot_of(Host, "ask_origin"), APP = slot_of(Host, "app")
cdef Py_ssize_t STATUS = slot_of(SENT, "status"), SENT_HEADERS = slot_of(SENT, "headers")
cdef Py_ssize_t CONTENT = slot_of(SENT, "content"), COMPLETE = slot_of(SENT, "complete")
cdef Py_ssize_t UPSTREAM = slot_of(SENT, "upstream"), WANTS_BODY = slot_of(SENT, "wants_body")
cdef Py_ssize_t NEEDS_BODY = slot_of(SENT, "needs_body")
cdef Py_ssize_t NEW_PATH = slot_of(REWRITES, "path"), NEW_HEADERS = slot_of(REWRITES, "headers")
cdef Py_ssize_t NEW_ARGS = slot_of(REWRITES, "args"), RESPONSE_HEADERS = slot_of(REWRITES, "resp_headers")
cdef Py_ssize_t NEW_BODY = slot_of(REWRITES, "body")
cdef Py_ssize_t OF_LAYER = slot_of(LAYER, "options"), WANTS = slot_of(OPTIONS, "response_body")
cdef Py_ssize_t ON_ERROR = slot_of(OPTIONS, "on_error")


# What a new call has in its slots: all but what the arguments say.
cdef list FRESH = []


cdef int _note_fresh() except -1:
    """Fill in `FRESH` from a call that Python has made."""
    call = RequestCall(None, Chain([], None), None, None)
    kinds = [kind for kind in RequestCall.__mro__ if "__slots__" in kind.__dict__]
    for name in (name for kind in kinds for name in kind.__slots__ if name != "__weakref__"):
        if name.startswith("__"):
            raise ImportError(name)
        if name not in ("chain", "overdue", "scope", "_connection", "_host", "_message"):
            FRESH.append((slot_of(RequestCall, name), getattr(call, name)))
    if len(FRESH) > 64:
        raise ImportError("FRESH_AT is too small")
    return 0


_note_fresh()
cdef Py_ssize_t FRESH_COUNT = len(FRESH)
cdef Py_ssize_t[64] FRESH_AT
for number, (at, _) in enumerate(FRESH):
    FRESH_AT[number] = at
cdef PyObject *FRESH_VALUES[64]
for number, (_, value) in enumerate(FRESH):
    FRESH_VALUES[number] = <PyObject *>value  # `FRESH` keeps it


cdef object answering_class = None
"""A class of connections whose `answer` is `answer_of_class`, so that nobody has to look for it."""
cdef Answering answer_of_class = NULL


cdef void answers_with(object kind, Answering function):
    """Call a function of C in place of `answer`, for the connections of a class."""
    global answering_class, answer_of_class
    answering_class = kind
    answer_of_class = function


cdef object new_call(object message, object chain, object connection, object host):
    """Make a call, as the class does. The chain has to be a `Chain`."""
    cdef object call = new_empty(CALL)
    cdef Py_ssize_t index
    for index in range(FRESH_COUNT):
        first_in_slot(call, FRESH_AT[index], FRESH_VALUES[index])
    first_in_slot(call, CHAIN, <PyObject *>chain)
    set_slot(call, OVERDUE, held(chain, NAMES))
    first_in_slot(call, CONNECTION, <PyObject *>connection)
    first_in_slot(call, HOST, <PyObject *>host)
    first_in_slot(call, REQUEST, <PyObject *>message)
    return call


def new_request_call(message, chain, connection, host):
    """Make a call, as the class does."""
    if type(chain) is not CHAINS:
        return CALL(message, chain, connection, host)
    return new_call(message, chain, connection, host)


cdef object _begin(object call):
    cdef object message, chain, host, headers, layers, layer, state
    cdef dict scope
    cdef bint has_state = False
    if type(call) is not CALL:
        return BEGIN_IN_PYTHON(call)
    message = held(call, REQUEST)
    chain = held(call, CHAIN)
    host = held(call, HOST)
    if (
        type(message) is not MESSAGE
        or type(chain) is not CHAINS
        or type(host) is not HOSTS
        or slot(chain, FOR_REQUESTS) is not <PyObject *>yes
        or slot(chain, EXACT) is not <PyObject *>no
        or slot(chain, BOTH) is not <PyObject *>no
        or slot(host, ASK_ORIGIN) is not <PyObject *>no
    ):
        return BEGIN_IN_PYTHON(call)
    headers = held(message, HEADERS)
    layers = held(chain, LAYERS)
    if (
        not PyList_CheckExact(headers)
        or PyList_GET_SIZE(headers) > MOST_HEADERS
        or not PyList_CheckExact(layers)
        or not PyList_GET_SIZE(layers)
    ):
        return BEGIN_IN_PYTHON(call)
    layer = <object>PyList_GET_ITEM(layers, 0)
    if not is_usual_layer(layer):
        return BEGIN_IN_PYTHON(call)
    scope = usual_scope(
        held(message, METHOD), held(message, PATH), held(message, SRC_IP), headers, arguments_of(message),
        held(host, APP), call, BEFORE,
    )
    if scope is None:
        return BEGIN_IN_PYTHON(call)
    state = state_of(call, None, &has_state)
    if state is None:
        return BEGIN_IN_PYTHON(call)
    return begin_layer(
        layer, call, state, has_state, scope, None, headers, method_of(call, "receive"), method_of(call, "send"), None
    )


def begin(call):
    """Make the scope, and begin the chain's run on it. See `RequestCall._begin`."""
    return _begin(call)


cdef object usual_chain(object call):
    """Return the call's chain, if `begin_run` and `end_run` may do what `Call.run` does; None: they may not."""
    cdef object chain
    if type(call) is not CALL:
        return None
    chain = held(call, CHAIN)
    return chain if type(chain) is CHAINS and number_of(slot(chain, CALLS)) >= 0 else None


cdef bint is_usual(object call, object chain) noexcept:
    """Return whether `end_run` may look at these two."""
    return type(call) is CALL and type(chain) is CHAINS


cdef object begin_run(object call, object chain):
    """Do what `Call.run` does at its beginning. Returns the chain's run, which is to be awaited; None: it is done."""
    set_slot(chain, CALLS, number_of(slot(chain, CALLS)) + 1)
    return _begin(call)


cdef bint end_run(object call, object chain, object owner) except -1:
    """Do what `Call.run` does at its end, if the call is answered, and nothing went wrong. Returns False if not."""
    cdef long calls
    if (
        slot(call, STAGE) is not <PyObject *>is_answered
        or slot(call, FAULTS) is not <PyObject *>None
        or slot(call, FAILED) is not <PyObject *>None
        or slot(call, BODY) is not <PyObject *>None
    ):
        return False
    set_slot(call, EXTENSION, None)
    set_slot(call, STATE, None)
    set_slot(call, APART, None)
    calls = number_of(slot(chain, CALLS))
    if calls > 1 or (calls == 1 and slot(chain, IDLE) is <PyObject *>None):  # nobody waits until there are none
        set_slot(chain, CALLS, calls - 1)
    else:
        chain.call_ended()
    if slot(call, TASK) is not <PyObject *>None:
        owner.ended(call)
        set_slot(call, TASK, None)
    return True


cdef long messages_of(object call) noexcept:
    """Return the number of the call's messages; -1: the event loop gets its turn with the next one, or it is none."""
    cdef long count = number_of(slot(call, MESSAGES))
    return count if (count + 1) % TURN else -1


cdef int _answer(object call, object message, object action, str outcome) except -1:
    """Answer the call, which runs.

    Args:
        call: The call.
        message: The request.
        action: The answer's.
        outcome: As of `Connection.answer`.

    Raises:
        PluginError: The answer does not fit into a frame. The call has noted it.
    """
    cdef object answer = new_empty(RESPONSE), connection = held(call, CONNECTION)
    set_slot(answer, ANSWER_ID, held(message, ID))
    set_slot(answer, ACTION, action)
    try:
        if type(connection) is answering_class:
            answer_of_class(connection, answer, outcome)
        else:
            connection.answer(answer, outcome)
    except (LocalProtocolError, PluginError) as exc:
        if isinstance(exc, PluginError):
            call._note(exc, forbids=True)
            raise
        error = PluginError(str(exc))
        call._note(error, forbids=True)
        raise error from exc
    set_slot(call, STAGE, is_answered)
    if slot(call, BODY) is not <PyObject *>None or slot(call, FAULTS) is not <PyObject *>None:
        call._end(outcome)
    return 0


cdef object _innermost(object call, object scope, object receive, object send):
    cdef object found, before, message
    cdef long count = messages_of(call) if type(call) is CALL else -1
    if (
        count < 0
        or slot(call, REWRITE) is not <PyObject *>None
        or slot(call, CHANGED_BODY) is not <PyObject *>no
        or slot(call, PARKING) is not <PyObject *>None
        or slot(call, FAULTS) is not <PyObject *>None
        or slot(call, HAS_SENT) is NULL
        or not PyDict_CheckExact(scope)
    ):
        return INNERMOST_IN_PYTHON(call, scope, receive, send)
    before = held(call, BEFORE)
    message = held(call, REQUEST)
    if not PyTuple_CheckExact(before) or PyTuple_GET_SIZE(before) != 5 or type(message) is not MESSAGE:
        return INNERMOST_IN_PYTHON(call, scope, receive, send)
    set_slot(call, MESSAGES, count + 1)
    found = usual_differences(before, scope, None)
    if found is NotImplemented:
        set_slot(call, MESSAGES, count)
        return INNERMOST_IN_PYTHON(call, scope, receive, send)
    set_slot(call, REWRITE, UNCHANGED if found is None else found)
    if slot(call, HAS_SENT) is not <PyObject *>None or slot(call, STAGE) is not <PyObject *>is_running:
        return send_empty(send)
    _answer(call, message, found, "pass" if found is None else "rewrite")
    return None


goes_on_with(CALL, _innermost)


def innermost(call, scope, receive, send):
    """Note what the chain passes on, and answer. See `RequestCall.innermost`."""
    return _innermost(call, scope, receive, send)


cdef object _new_sent(object call, object status, list headers):
    cdef object sent = new_empty(SENT)
    set_slot(sent, STATUS, status)
    set_slot(sent, SENT_HEADERS, headers)
    set_slot(sent, CONTENT, nothing)
    set_slot(sent, COMPLETE, yes if slot(call, STAGE) is <PyObject *>is_answered else no)
    set_slot(sent, UPSTREAM, None)
    set_slot(sent, WANTS_BODY, no)
    set_slot(sent, NEEDS_BODY, no)
    return sent


def wraps_send(call, layer):
    """Note that a plugin wraps `send`. See `Call.wraps_send`."""
    cdef object options = held(layer, OF_LAYER) if type(layer) is LAYER else None, wants
    if type(call) is not CALL or type(options) is not OPTIONS or slot(call, HAS_SENT) is not <PyObject *>None:
        return WRAPS_SEND_IN_PYTHON(call, layer)
    wants = held(options, WANTS)
    if type(wants) is not bool or slot(options, ON_ERROR) is not <PyObject *>closed:
        return WRAPS_SEND_IN_PYTHON(call, layer)
    sent = _new_sent(call, 0, [])
    set_slot(sent, WANTS_BODY, wants)
    set_slot(sent, NEEDS_BODY, wants)
    set_slot(call, HAS_SENT, sent)


cdef bint _take_start(object call, dict message) except -1:
    cdef object sent, status = value_at(message, AT_STATUS, "status", None)
    cdef object given = value_at(message, AT_HEADERS_OF_RESPONSE, "headers", MISSING)
    cdef list headers = None
    cdef long number = number_of(<PyObject *>status)
    if not 200 <= number <= 999 or IS_CLOSING[number]:
        return False
    if given is not MISSING:
        if not PyList_CheckExact(given):
            return False
        headers = checked_list(given)
        if headers is None:
            return False
    sent = held(call, HAS_SENT)
    if sent is None:
        if slot(call, STAGE) is <PyObject *>is_answered:
            return False
        set_slot(call, HAS_SENT, _new_sent(call, status, [] if headers is None else headers))
        return True
    if (
        type(sent) is not SENT
        or slot(sent, COMPLETE) is not <PyObject *>no
        or number_of(slot(sent, STATUS))
        or slot(sent, UPSTREAM) is not <PyObject *>None
    ):
        return False
    if headers:
        set_slot(sent, SENT_HEADERS, headers)
    set_slot(sent, STATUS, status)
    return True


cdef object _with_headers(object rewrite, object headers):
    """Return a Rewrite that also sets headers of the response."""
    cdef object made = new_empty(REWRITES)
    set_slot(made, NEW_PATH, held(rewrite, NEW_PATH))
    set_slot(made, NEW_HEADERS, held(rewrite, NEW_HEADERS))
    set_slot(made, NEW_ARGS, held(rewrite, NEW_ARGS))
    set_slot(made, RESPONSE_HEADERS, headers)
    set_slot(made, NEW_BODY, held(rewrite, NEW_BODY))
    return made


cdef bint _take_body(object call, dict message) except -1:
    cdef object sent = held(call, HAS_SENT), content = value_at(message, AT_BODY, "body", nothing)
    cdef object more = message.get("more_body", no)
    cdef object action, before, chain, cures, headers, request, status
    cdef long number
    if type(call) is not CALL or type(sent) is not SENT or slot(sent, COMPLETE) is not <PyObject *>no or more is not no:
        return False
    status = held(sent, STATUS)
    number = number_of(<PyObject *>status)
    before = held(sent, CONTENT)
    if not 1 <= number <= 999 or not PyBytes_CheckExact(before) or PyBytes_GET_SIZE(before):
        return False
    if not PyBytes_CheckExact(content) or PyBytes_GET_SIZE(content) > LONGEST:
        return False
    if slot(call, STAGE) is not <PyObject *>is_running or slot(call, FAULTS) is not <PyObject *>None:
        return False
    chain = held(call, CHAIN)
    request = held(call, REQUEST)
    headers = held(sent, SENT_HEADERS)
    if type(chain) is not CHAINS or type(request) is not MESSAGE or not PyList_CheckExact(headers):
        return False
    if slot(call, PARKING) is not <PyObject *>None:
        return False
    action = held(call, REWRITE)
    if action is not None and number < 400:
        if number != 200 or PyBytes_GET_SIZE(content) or type(action) is not REWRITES:
            return False
        if PyList_GET_SIZE(headers):
            headers = usual_response_headers(headers)
            if headers is None:
                return False
            action = _with_headers(action, headers)
        if action is UNCHANGED:
            _answer(call, request, None, "pass")
        else:
            _answer(call, request, action, "rewrite")
        set_slot(sent, COMPLETE, yes)
        return True
    cures = held(chain, CURES)
    if type(cures) is not bool:
        return False
    action = usual_stop(held(request, METHOD), status, headers, content, cures is yes)
    if action is None:
        return False
    set_slot(sent, CONTENT, content)
    _answer(call, request, action, <str>OUTCOMES[number])
    set_slot(sent, COMPLETE, yes)
    return True


cdef inline bint _is_text(object text, const char *other, Py_ssize_t size) noexcept:
    """Return whether a string is equal to one of `size` ASCII characters."""
    return (
        PyUnicode_IS_COMPACT_ASCII(text)
        and PyUnicode_GET_LENGTH(text) == size
        and not memcmp(PyUnicode_DATA(text), other, <size_t>size)
    )


cdef bint _take(object call, object message) except -1:
    """Take a message of the chain's response, if it is a usual one. Returns whether it was."""
    cdef object kind
    cdef bint taken
    cdef long count = messages_of(call) if is_kind(call, CALL) else -1
    if count < 0 or slot(call, STAGE) is <PyObject *>is_gone or not PyDict_CheckExact(message):
        return False
    kind = value_at(message, AT_TYPE, "type", None)
    if type(kind) is not str:
        return False
    set_slot(call, MESSAGES, count + 1)
    if _is_text(kind, b"http.response.start", 19):
        taken = _take_start(call, message)
    else:
        taken = _is_text(kind, b"http.response.body", 18) and _take_body(call, message)
    if not taken:
        set_slot(call, MESSAGES, count)
    return taken


@final
cdef class Sending(Later):
    """What `Call.send` returns."""

    cdef object call, message

    cdef object begin(self):
        return None if _take(self.call, self.message) else SEND_IN_PYTHON(self.call, self.message)


def send(call, message):
    """Take a message of the chain's response, once it is awaited. See `Call.send`."""
    cdef Sending made = Sending.__new__(Sending)
    made.call = call
    made.message = message
    return made
