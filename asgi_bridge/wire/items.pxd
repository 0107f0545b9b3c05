"""Access to an item of a dict by its usual place, which is quicker than to look for its key.

The dicts of ASGI are nearly always filled in the same order, and copies have the order of their originals. Where
another key is in the place, the key is looked for.
"""

from cpython.object cimport PyObject

cdef extern from *:
    """
    #ifndef ASGI_BRIDGE_ITEMS
    #define ASGI_BRIDGE_ITEMS
    static inline PyObject *item_at(PyObject *dict, Py_ssize_t place, PyObject *key) {
        PyObject *there, *value;
        /* the place is an index within the dict's own memory, and is checked against its end */
        if (PyDict_Next(dict, &place, &there, &value) && there == key) return value;
        return PyDict_GetItemWithError(dict, key);
    }
    #endif
    """
    # borrowed; NULL: there is no such item
    PyObject *item_at(object dict, Py_ssize_t place, object key) except? NULL


cdef inline object value_at(object mapping, Py_ssize_t place, str key, object default):
    """Return an item of a dict; `default`: there is none."""
    cdef PyObject *value = item_at(mapping, place, key)
    return default if value is NULL else <object>value


# Places in the scope of a request as `_request_scope.pyx` makes it, which is checked there.
cdef enum:
    AT_TYPE = 0
    AT_METHOD = 3
    AT_PATH = 5
    AT_RAW_PATH = 6
    AT_QUERY_STRING = 7
    AT_HEADERS = 9
    AT_EXTENSIONS = 12
    AT_STATE = 14

# Places in the messages of a response, where `AT_TYPE` is that of the type too, as most applications write them.
cdef enum:
    AT_STATUS = 1
    AT_HEADERS_OF_RESPONSE = 2
    AT_BODY = 1

# Places in what a layer's extension begins with.
cdef enum:
    AT_PHASE = 1
    AT_VAR = 5
