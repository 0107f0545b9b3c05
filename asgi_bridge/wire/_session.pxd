"""What other compiled modules take from ``_session.pyx``."""

cdef object receive_usual(object session, object data)
cdef bytes send_usual(object session, object message)
cdef bytes ask_usual(object session, tuple infos)
