"""What other compiled modules take from ``_chains.pyx``."""

cdef object find_in(object store, object token)
