"""A connection's part of a call in C: compiled twins of methods of `RunnerProtocol`.

They do what is usual, and leave all else to the pure twins: reads that bring neither one frame alone and whole nor whole
answers to asks, and calls that are traced, limited or recorded, that ask for something first, or may be parked.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.list cimport PyList_Append, PyList_CheckExact, PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.sequence cimport PySequence_GetItem
from cpython.set cimport PySet_Add, PySet_Discard
from libc.stdint cimport uint8_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from ..adapter._request_call cimport answers_with, new_call
from ..plugins._chains cimport find_in
from ..wire._session cimport EXTRA_INFO, HEADER, ask_usual, receive_usual, send_usual
from ..wire.slots cimport held, is_kind, number_of, set_slot, slot, slot_of
from ._answers cimport Answers, new_answers

from ..adapter import Call, Host
from ..plugins import Chain
from ..wire import ExtraInfoResp, HTTPReqCallReq
from .access import note_answered
from .call_tasks import CallTasks
from .protocol import RunnerProtocol
from .runner import Runner, RunnerOptions
from .state import RunnerState

__all__ = ["SOURCES", "answer", "ask", "data_received", "ended", "note_task"]

cdef extern from *:
    const char *ASGI_BRIDGE_SOURCES

SOURCES = ASGI_BRIDGE_SOURCES.decode()
"""Digest of the sources of this build."""

cdef object PROTOCOL = RunnerProtocol, RUNNERS = Runner, RUNNER_OPTIONS = RunnerOptions, CALL_TASKS = CallTasks
cdef object CALL = HTTPReqCallReq, INFO = ExtraInfoResp, CHAIN = Chain, HOSTS = Host
cdef object NOTE_ANSWERED = note_answered
cdef object ANY_CALL = Call, RUNNER_STATE = RunnerState
cdef object DATA_RECEIVED_IN_PYTHON = RunnerProtocol.data_received, ANSWER_IN_PYTHON = RunnerProtocol.answer
cdef object ASK_IN_PYTHON = RunnerProtocol.ask
cdef object NOTE_TASK_IN_PYTHON = RunnerProtocol.note_task, ENDED_IN_PYTHON = RunnerProtocol.ended
cdef object yes = True, no = False

cdef Py_ssize_t RUNNER = slot_of(PROTOCOL, "_runner"), STATE = slot_of(PROTOCOL, "_server_state")
cdef Py_ssize_t TASKS = slot_of(PROTOCOL, "_tasks"), TRANSPORT = slot_of(PROTOCOL, "_transport")
cdef Py_ssize_t SESSION = slot_of(PROTOCOL, "_session"), OWN_CALL = slot_of(PROTOCOL, "_call")
cdef Py_ssize_t BUSY = slot_of(PROTOCOL, "_busy"), CLOSING = slot_of(PROTOCOL, "_closing")
cdef Py_ssize_t FULL = slot_of(PROTOCOL, "_full"), ASKS = slot_of(PROTOCOL, "_asks"), LINK = slot_of(PROTOCOL, "_link")
cdef Py_ssize_t LOOP = slot_of(PROTOCOL, "_loop")
cdef Py_ssize_t OPTIONS = slot_of(RUNNERS, "options"), STORE = slot_of(RUNNERS, "store")
cdef Py_ssize_t HOST = slot_of(RUNNERS, "host"), CALLS = slot_of(RUNNERS, "calls")
cdef Py_ssize_t WATCHED = slot_of(RUNNERS, "watched"), GIVE = slot_of(RUNNERS, "give")
cdef Py_ssize_t TRACING = slot_of(RUNNERS, "tracing"), OBSERVER = slot_of(RUNNERS, "observer")
cdef Py_ssize_t LIMIT = slot_of(RUNNER_OPTIONS, "limit_concurrency"), WAITS = slot_of(CHAIN, "waits")
cdef Py_ssize_t BOTH = slot_of(CHAIN, "both"), EXACT = slot_of(CHAIN, "exact")
cdef Py_ssize_t ASK_ORIGIN = slot_of(HOSTS, "ask_origin")
cdef Py_ssize_t TOKEN = slot_of(CALL, "conf_token"), RESULT = slot_of(INFO, "result")
cdef Py_ssize_t TASK = slot_of(ANY_CALL, "task"), STARTED = slot_of(ANY_CALL, "started")
cdef Py_ssize_t READY = slot_of(CALL_TASKS, "ready")
cdef Py_ssize_t TOTAL = slot_of(RUNNER_STATE, "total_requests"), ALL_TASKS = slot_of(RUNNER_STATE, "tasks")

# What the functions here do in one step: for `data_received`, and for the two others.
cdef list STARTING = [(name, getattr(PROTOCOL, name)) for name in ("_start_call", "_take_info")]
cdef list ANSWERING = [(name, getattr(PROTOCOL, name)) for name in ("_send_answer", "_fail_asks")]
# The class of the last connection that does these as `RunnerProtocol` does. Other classes are left to the pure twins.
cdef object starting_class = None
cdef object answering_class = None


cdef bint _has(object protocol, list steps) except -1:
    cdef object kind = type(protocol)
    return is_kind(protocol, PROTOCOL) and all([getattr(kind, name) is step for name, step in steps])


cdef inline bint _starts_usually(object protocol) except -1:
    global starting_class
    if type(protocol) is starting_class:
        return True
    if not _has(protocol, STARTING) or not type(protocol).runs_usual_calls:
        return False
    starting_class = type(protocol)
    return True


cdef inline bint _answers_usually(object protocol) except -1:
    global answering_class
    if type(protocol) is answering_class:
        return True
    if not _has(protocol, ANSWERING):
        return False
    answering_class = type(protocol)
    return True


cdef object _runner_of(object protocol):
    """Return the connection's runner; None: it is something else."""
    cdef object runner = held(protocol, RUNNER)
    return runner if is_kind(runner, RUNNERS) else None


cdef bint _start(object protocol, object message) except -1:
    """Start a call. Returns False if something is unusual, and nothing was done."""
    cdef object runner = _runner_of(protocol), options, host, tasks
    cdef object chain, call, link, ready, state
    cdef long count, waits
    cdef timespec now
    if runner is None or slot(runner, TRACING) is not <PyObject *>None:  # what is traced has other classes
        return False
    options = held(runner, OPTIONS)
    host = held(runner, HOST)
    tasks = held(protocol, TASKS)
    if (
        type(options) is not RUNNER_OPTIONS
        or slot(options, LIMIT) is not <PyObject *>None
        or type(host) is not HOSTS
        or slot(host, ASK_ORIGIN) is not <PyObject *>no
        or type(tasks) is not CALL_TASKS
    ):
        return False
    chain = find_in(held(runner, STORE), held(message, TOKEN))
    if (
        type(chain) is not CHAIN
        or slot(chain, BOTH) is not <PyObject *>no
        or slot(chain, EXACT) is not <PyObject *>no
    ):
        return False
    waits = number_of(slot(chain, WAITS))
    if waits < 0:
        return False
    set_slot(protocol, BUSY, yes)
    link = held(protocol, LINK)
    if link is not None:
        link.busy(protocol)
    state = held(protocol, STATE)
    count = number_of(slot(state, TOTAL)) if type(state) is RUNNER_STATE else -1
    if count < 0:
        state.total_requests += 1
    else:
        set_slot(state, TOTAL, count + 1)
    call = new_call(message, chain, protocol, host)
    if slot(runner, WATCHED) is not <PyObject *>no:
        clock_gettime(CLOCK_MONOTONIC, &now)
        set_slot(call, STARTED, now.tv_sec + now.tv_nsec * 1e-9)
    set_slot(protocol, OWN_CALL, call)
    PySet_Add(held(runner, CALLS), call)
    ready = held(tasks, READY)
    if waits:
        set_slot(chain, WAITS, waits - 1)
        protocol.start_in_task(call)
    elif PyList_CheckExact(ready) and PyList_GET_SIZE(ready):
        PyList_Append(ready, (call, protocol))
    else:
        tasks.start(call, protocol)
    return True


cdef int _take_info(object protocol, object result) except -1:
    """Do what `RunnerProtocol._take_info` does."""
    cdef object asks = held(protocol, ASKS), future, wanted
    cdef list results
    future, wanted, results = PySequence_GetItem(asks, 0)
    results.append(result)
    if PyList_GET_SIZE(results) == number_of(<PyObject *>wanted):
        asks.popleft()
        if type(future) is Answers:
            (<Answers>future).arrive(results, None)
        elif not future.done():
            future.set_result(results)
    return 0


cdef bytes _behind_infos(object protocol, bytes data):
    """Take answers to asks that one read has brought together. Returns what is behind them; None: nothing."""
    cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data), begin = 0, end
    cdef object session = held(protocol, SESSION), message
    while size - begin >= HEADER and at[begin] == EXTRA_INFO:
        end = begin + HEADER + (<Py_ssize_t>at[begin + 1] << 16 | at[begin + 2] << 8 | at[begin + 3])
        if end > size:
            break
        message = receive_usual(session, data, begin, end)
        if message is None:
            break
        _take_info(protocol, held(message, RESULT))
        begin = end
    return data if not begin else data[begin:] if begin < size else None


def data_received(protocol, data):
    """Take the bytes of one read. See `RunnerProtocol.data_received`."""
    cdef object message = None
    if _starts_usually(protocol):
        message = receive_usual(held(protocol, SESSION), data, 0, -1)
        if message is None and PyBytes_CheckExact(data) and not held(protocol, TRANSPORT).is_closing():
            data = _behind_infos(protocol, data)
            if data is None:
                return
    if message is None:
        DATA_RECEIVED_IN_PYTHON(protocol, data)
    elif type(message) is INFO:
        _take_info(protocol, held(message, RESULT))
    elif type(message) is not CALL or not _start(protocol, message):
        protocol._start_call(message)


cdef object _tasks(object protocol):
    """Return the server's tasks."""
    cdef object state = held(protocol, STATE)
    return held(state, ALL_TASKS) if type(state) is RUNNER_STATE else state.tasks


def note_task(protocol, call, task):
    """Note that a call has a task until its end. See `RunnerProtocol.note_task`."""
    if not is_kind(protocol, PROTOCOL) or not is_kind(call, ANY_CALL):
        return NOTE_TASK_IN_PYTHON(protocol, call, task)
    set_slot(call, TASK, task)
    PySet_Add(_tasks(protocol), task)


def ended(protocol, call):
    """Note the end of a call. See `RunnerProtocol.ended`."""
    cdef object runner = held(protocol, RUNNER) if is_kind(protocol, PROTOCOL) else None
    if not is_kind(runner, RUNNERS) or not is_kind(call, ANY_CALL):
        return ENDED_IN_PYTHON(protocol, call)
    PySet_Discard(held(runner, CALLS), call)
    task = held(call, TASK)
    if task is not None:
        PySet_Discard(_tasks(protocol), task)


cdef object _answer(object protocol, object message, object outcome):
    """Do what `RunnerProtocol.answer` does."""
    cdef object runner = _runner_of(protocol) if _answers_usually(protocol) else None, transport, link, call
    cdef bytes made = None
    if runner is not None and not held(protocol, ASKS):
        transport = held(protocol, TRANSPORT)
        if not transport.is_closing():
            made = send_usual(held(protocol, SESSION), message)
    if made is None:
        return ANSWER_IN_PYTHON(protocol, message, outcome)
    transport.write(made)
    set_slot(protocol, BUSY, no)
    link = held(protocol, LINK)
    if link is not None:
        link.answered(protocol)
    if (
        slot(protocol, FULL) is not <PyObject *>no  # since it was written
        or slot(protocol, CLOSING) is not <PyObject *>no
        or slot(runner, GIVE) is not <PyObject *>None
    ):
        protocol._after_answer()
    call = held(protocol, OWN_CALL)
    if call is not None:
        set_slot(protocol, OWN_CALL, None)
        PySet_Discard(held(runner, CALLS), call)
        if slot(runner, WATCHED) is not <PyObject *>no:
            NOTE_ANSWERED(runner, call, outcome)


def answer(protocol, message, outcome):
    """Answer the call. See `RunnerProtocol.answer`."""
    return _answer(protocol, message, outcome)


answers_with(PROTOCOL, _answer)


def ask(protocol, infos):
    """Ask the gateway. See `RunnerProtocol.ask`."""
    cdef object runner = _runner_of(protocol) if _answers_usually(protocol) else None, transport, answers, observer
    cdef bytes made = None
    if runner is not None and type(infos) is tuple:
        transport = held(protocol, TRANSPORT)
        if not transport.is_closing():
            made = ask_usual(held(protocol, SESSION), infos)
    if made is None:
        return ASK_IN_PYTHON(protocol, infos)
    transport.write(made)
    answers = new_answers(held(protocol, LOOP))
    held(protocol, ASKS).append((answers, len(<tuple>infos), []))
    observer = held(runner, OBSERVER)
    if observer is not None:
        observer.asked()
    return answers
