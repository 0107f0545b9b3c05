"""Access to the slots of classes that are written in Python, as quick as to the fields of a struct.

`slot_of` finds where a class keeps a slot. The other functions take an instance of that class, or of a subclass, which
their callers have to check, since they look at nothing: by `type(...) is`, or by `is_kind`. `isinstance` would not do:
an object may say that it is of a class, or a class that another one is its subclass.

Whatever stands in a slot may be of any type, and may be gone: an attribute can be set to anything, and be deleted.
"""

from cpython.object cimport PyObject

cdef extern from *:
    """
    #ifndef ASGI_BRIDGE_SLOTS
    #define ASGI_BRIDGE_SLOTS
    #include <structmember.h>

    static Py_ssize_t slot_of(PyObject *cls, PyObject *name) {
        PyObject *descriptor = PyObject_GetAttr(cls, name);
        Py_ssize_t found = -1;
        if (descriptor == NULL) return -1;
        if (Py_TYPE(descriptor) == &PyMemberDescr_Type) {
            PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;
            if (member->type == T_OBJECT_EX) found = member->offset;
        }
        Py_DECREF(descriptor);
        if (found < 0) PyErr_Format(PyExc_ImportError, "%R is no slot", name);
        return found;
    }
    static inline int is_kind(PyObject *self, PyObject *cls) {
        return PyObject_TypeCheck(self, (PyTypeObject *)cls);
    }
    static inline PyObject *slot(PyObject *self, Py_ssize_t at) {
        return *(PyObject **)((char *)self + at);
    }
    /* Raise what Python raises for an attribute that is not there. */
    static PyObject *no_slot(PyObject *self, Py_ssize_t at) {
        PyObject *classes = Py_TYPE(self)->tp_mro;
        Py_ssize_t index;
        for (index = 0; index < PyTuple_GET_SIZE(classes); index++) {
            PyMemberDef *member = ((PyTypeObject *)PyTuple_GET_ITEM(classes, index))->tp_members;
            for (; member != NULL && member->name != NULL; member++) {
                if (member->offset == at && member->type == T_OBJECT_EX) return PyMember_GetOne((char *)self, member);
            }
        }
        PyErr_SetString(PyExc_AttributeError, Py_TYPE(self)->tp_name);
        return NULL;
    }
    static inline PyObject *held(PyObject *self, Py_ssize_t at) {
        PyObject *found = slot(self, at);
        if (found == NULL) return no_slot(self, at);
        Py_INCREF(found);
        return found;
    }
    static inline long number_of(PyObject *number) {
        if (number == NULL || !PyLong_CheckExact(number)) return -1;
    #if PY_VERSION_HEX >= 0x030C0000
        if (!PyUnstable_Long_IsCompact((PyLongObject *)number)) return -1;
        Py_ssize_t found = PyUnstable_Long_CompactValue((PyLongObject *)number);
        return found >= 0 ? (long)found : -1;
    #else
        /* the sign and the number of digits, which have 30 bits each */
        if (Py_SIZE(number) == 0) return 0;
        return Py_SIZE(number) == 1 ? (long)((PyLongObject *)number)->ob_digit[0] : -1;
    #endif
    }
    static inline void set_slot(PyObject *self, Py_ssize_t at, PyObject *value) {
        PyObject **place = (PyObject **)((char *)self + at), *before = *place;
        Py_INCREF(value);
        *place = value;
        Py_XDECREF(before);
    }
    static inline void first_in_slot(PyObject *self, Py_ssize_t at, PyObject *value) {
        Py_INCREF(value);
        *(PyObject **)((char *)self + at) = value;
    }
    /* What PyObject_GetAttr returns for an object without a __dict__, for methods and for constants of the class. */
    static inline PyObject *method_of(PyObject *self, PyObject *name) {
        PyObject *found = _PyType_Lookup(Py_TYPE(self), name);
        if (found != NULL && PyType_HasFeature(Py_TYPE(found), Py_TPFLAGS_METHOD_DESCRIPTOR)) {
            PyObject *method;
            Py_INCREF(found);
            method = PyMethod_New(found, self);
            Py_DECREF(found);
            return method;
        }
        if (found != NULL && Py_TYPE(found)->tp_descr_get == NULL) return Py_NewRef(found);
        return PyObject_GetAttr(self, name);
    }
    static inline PyObject *new_empty(PyObject *type) {
        return ((PyTypeObject *)type)->tp_alloc((PyTypeObject *)type, 0);
    }
    #endif
    """
    Py_ssize_t slot_of(object cls, object name) except -1
    # whether an object really is of a class, or of a subclass
    bint is_kind(object self, object cls) noexcept
    # borrowed; NULL: the slot is empty. To compare it, and for nothing else: any step may end what it leads to
    PyObject *slot(object self, Py_ssize_t at) noexcept
    # what is in a slot; AttributeError: it is empty
    object held(object self, Py_ssize_t at)
    # -1: it is no int from 0 to 2**30 - 1, but NULL, or anything else
    long number_of(PyObject *number) noexcept
    # may run Python code: that of a finalizer of what was in the slot
    void set_slot(object self, Py_ssize_t at, object value) noexcept
    # for a slot that is empty, as those of a new object are
    void first_in_slot(object self, Py_ssize_t at, PyObject *value) noexcept
    object new_empty(object type)
    # an attribute that stands in the class, as most methods do: quicker than to look for it in the object too
    object method_of(object self, object name)
