# cython: language_level=3, boundscheck=False, wraparound=False
"""What the runtime does thousands of times in a row, compiled; `sends` takes Python where it is not.

Built where a C compiler is at hand (`edged/build.py`).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport errno
from libc.stdlib cimport free, malloc

cdef extern from *:
    """
    #define _GNU_SOURCE
    #include <fcntl.h>
    """
    ssize_t tee(int fd_in, int fd_out, size_t size, unsigned int flags) nogil
    ssize_t splice(
        int fd_in, void *at_in, int fd_out, void *at_out, size_t size, unsigned int flags
    ) nogil
    unsigned int SPLICE_F_MOVE
    unsigned int SPLICE_F_NONBLOCK

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


def tee_to(int sock, int pipe, int spare_in, int spare_out, int nowhere, size_t size):
    """Send on a socket the `size` bytes that a pipe holds, and leave them there.

    Returns how many the kernel took; -errno if none. `spare_in` and `spare_out` are the ends of an
    empty pipe at least as large, which is empty again after; `nowhere` is /dev/null.
    """
    cdef ssize_t copied, took = 0, rest
    cdef size_t sent = 0
    cdef int error = 0
    cdef unsigned int flags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK
    with nogil:
        copied = tee(pipe, spare_out, size, SPLICE_F_NONBLOCK)
        if copied < 0:
            error = errno
            copied = 0
        while sent < <size_t> copied:
            took = splice(spare_in, NULL, sock, NULL, copied - sent, flags)
            if took <= 0:
                error = errno
                break
            sent += took
        rest = copied - sent
        while rest > 0:
            took = splice(spare_in, NULL, nowhere, NULL, rest, flags)
            if took <= 0:
                break
            rest -= took
    if rest > 0:
        raise RuntimeError(f"{rest} bytes are left in the spare pipe")
    return sent if sent else -error
