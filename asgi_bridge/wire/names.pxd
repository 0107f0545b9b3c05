"""The place of a header's name in a table of names that came before: there are few names, and they come again."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

cdef enum:
    # places in a table
    NAMES = 512
    # longer names have none
    LONGEST_NAME = 40


cdef inline uint32_t place_of(const uint8_t *text, Py_ssize_t length) noexcept:
    """Return the place of a name, which is not empty. Other names may have the same."""
    cdef uint32_t place = <uint32_t>length * 31 + text[0]
    place = place * 31 + text[length >> 1]
    return (place * 31 + text[length - 1]) % NAMES


cdef inline bint is_name(object kept, const uint8_t *text, Py_ssize_t length) noexcept:
    """Return whether what is at a place, bytes or None, is this name."""
    return (
        kept is not None
        and PyBytes_GET_SIZE(kept) == length
        and not memcmp(PyBytes_AS_STRING(kept), text, <size_t>length)
    )
