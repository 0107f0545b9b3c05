"""A copy of a list that somebody else may change.

To make a list may run the garbage collector, and that a finalizer, which may change the list that is about to be
copied. Slices of CPython, as of 3.11, do not expect that, and read behind its end. So the size is compared again here.
"""

cdef extern from *:
    """
    #ifndef ASGI_BRIDGE_LISTS
    #define ASGI_BRIDGE_LISTS
    static inline Py_ssize_t count_from(PyObject *list, Py_ssize_t start) {
        return PyList_GET_SIZE(list) > start ? PyList_GET_SIZE(list) - start : 0;
    }
    static inline PyObject *copy_from(PyObject *list, Py_ssize_t start) {
        Py_ssize_t size, index;
        PyObject *copy;
        for (;;) {
            size = count_from(list, start);
            copy = PyList_New(size);
            if (copy == NULL) return NULL;
            if (size == count_from(list, start)) break;
            Py_DECREF(copy);
        }
        /* nothing here runs any Python code */
        for (index = 0; index < size; index++) {
            PyObject *item = PyList_GET_ITEM(list, start + index);
            Py_INCREF(item);
            PyList_SET_ITEM(copy, index, item);
        }
        return copy;
    }
    #endif
    """
    # the items from an index on, which is not negative
    list copy_from(list items, Py_ssize_t start)
