"""Entries of a flatbuffer, laid out as its builders write them. ``_decode.pyx`` and ``_unread.pyx`` read them so."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp

cdef enum:
    # an entry outside of the usual layout
    UNUSUAL = -1

cdef struct Buffer:
    const uint8_t *bytes
    int64_t size

cdef struct Entry:
    const uint8_t *name
    int64_t name_size
    const uint8_t *value
    int64_t value_size


cdef inline uint16_t u16(const uint8_t *at) noexcept nogil:
    return <uint16_t>(at[0] | at[1] << 8)


cdef inline uint32_t u32(const uint8_t *at) noexcept nogil:
    return <uint32_t>at[0] | <uint32_t>at[1] << 8 | <uint32_t>at[2] << 16 | <uint32_t>at[3] << 24


cdef inline int64_t i32(const uint8_t *at) noexcept nogil:
    cdef int64_t number = u32(at)
    return number - (<int64_t>1 << 32) if number >> 31 else number


cdef inline int64_t usual_entry(Buffer buf, int64_t at, int64_t limit, int64_t *known, Entry *entry) noexcept nogil:
    """Find name and value of an entry. Returns the position of its table; `UNUSUAL`: it is laid out otherwise.

    Args:
        buf: The payload.
        at: Position of the distance to the table. The caller has checked that it is within the buffer.
        limit: End of the entry: its bytes lie before this position.
        known: Position of a vtable that was found to be the usual one. It is written too.
        entry: Gets what is found.
    """
    cdef int64_t table = at + u32(buf.bytes + at), vtable, value, value_end, name, name_end
    if table + 16 > limit or u32(buf.bytes + table + 4) != 8:
        return UNUSUAL
    vtable = table - i32(buf.bytes + table)
    if vtable != known[0]:
        if vtable < 0 or vtable + 8 > buf.size or memcmp(buf.bytes + vtable, b"\x08\0\x0c\0\x08\0\x04\0", 8):
            return UNUSUAL
        known[0] = vtable
    value = table + 16
    value_end = value + u32(buf.bytes + table + 12)
    name = table + 12 + u32(buf.bytes + table + 8)
    if value_end > name or name > limit:
        return UNUSUAL
    name_end = name + u32(buf.bytes + name - 4)
    if name_end > limit:
        return UNUSUAL
    entry.name = buf.bytes + name
    entry.name_size = name_end - name
    entry.value = buf.bytes + value
    entry.value_size = value_end - value
    return table
