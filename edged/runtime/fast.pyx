# cython: language_level=3, boundscheck=False, wraparound=False
"""What the runtime does thousands of times in a row, compiled; `sends` takes Python where it is not.

Built where a C compiler is at hand (`edged/build.py`).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport errno
from libc.stdlib cimport free, malloc

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void *data, size_t size, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL


def send_each(list fds not None, bytes data not None):
    """Send the same bytes on each socket; how many the kernel took of it, or -errno, for each."""
    cdef Py_ssize_t count = len(fds), index
    cdef const char *bytes_of = PyBytes_AS_STRING(data)
    cdef size_t size = PyBytes_GET_SIZE(data)
    cdef ssize_t *took = <ssize_t *> malloc(max(count, 1) * sizeof(ssize_t))
    cdef int *sockets = <int *> malloc(max(count, 1) * sizeof(int))
    try:
        if took == NULL or sockets == NULL:
            raise MemoryError
        for index in range(count):
            sockets[index] = fds[index]
        with nogil:
            for index in range(count):
                took[index] = send(sockets[index], bytes_of, size, MSG_DONTWAIT | MSG_NOSIGNAL)
                if took[index] < 0:
                    took[index] = -errno
        return [took[index] for index in range(count)]
    finally:
        free(took)
        free(sockets)

