# cython: language_level=3, boundscheck=False, wraparound=False
"""What the runtime does thousands of times in a row, compiled; where it is not, `sends` and
`serving` take their own in Python, which say what each does and why.

Built where a C compiler is at hand (`edged/build.py`).
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport errno
from libc.stdlib cimport free, malloc
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.types cimport off_t

from os import strerror

from edged.runtime.standing import REQUEST_BYTES_MAX

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void *data, size_t size, int flags)
    ssize_t recv(int fd, void *data, size_t size, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL

cdef extern from "<sys/sendfile.h>" nogil:
    ssize_t sendfile(int out_fd, int in_fd, off_t *offset, size_t count)

cdef extern from "<sys/timerfd.h>" nogil:
    struct itimerspec:
        timespec it_interval
        timespec it_value
    int timerfd_settime(int fd, int flags, const itimerspec *new, itimerspec *old)

cdef extern from "<string.h>" nogil:
    const void *memchr(const void *data, int byte, size_t size)
    int memcmp(const void *left, const void *right, size_t size)

cdef enum:
    READABLE = 1  # EPOLLIN.
    GET_BYTES = 4  # "GET ",
    VERSION_BYTES = 9  # and " HTTP/1.1" around what is asked for.

cdef Py_ssize_t request_bytes_max = REQUEST_BYTES_MAX


cdef inline double monotonic() noexcept nogil:
    cdef timespec at
    clock_gettime(CLOCK_MONOTONIC, &at)
    return at.tv_sec + at.tv_nsec * 1e-9


cdef class Table:
    """What stands, and what was found last: those who are served together ask for the same."""

    cdef object standing
    cdef double until
    cdef set heads
    cdef dict answers
    cdef bytes head, path
    cdef object answer

    cdef int look(self, standing) except -1:
        """Have that in view; it forgets what was found where it has begun anew since."""
        cdef double until = standing.until
        if standing is not self.standing or until != self.until:
            self.standing, self.until = standing, until
            self.heads, self.answers = standing.heads, standing.answers
            self.head = self.path = self.answer = None
        return 0

    cdef object find(self, const char *request, Py_ssize_t count):
        """As `standing.StandingAnswers.find`, of so many bytes, within their second."""
        cdef const char *end = <const char *> memchr(request, b'\r', count)
        cdef const char *mark
        cdef const char *at
        if end == NULL or end - request < GET_BYTES + VERSION_BYTES or end + 1 >= request + count:
            return None
        if end[1] != b'\n' or memcmp(request, b"GET ", GET_BYTES):
            return None
        if not is_same(self.head, end + 2, request + count - end - 2):
            head = PyBytes_FromStringAndSize(end + 2, request + count - end - 2)
            if head not in self.heads:
                return None
            self.head = head
        end -= VERSION_BYTES
        if memcmp(end, b" HTTP/1.1", VERSION_BYTES):
            return None
        request += GET_BYTES
        mark = <const char *> memchr(request, b'?', end - request)
        if mark != NULL:
            at = mark + 1
            while at < end:
                if at[0] <= b' ' or at[0] >= 0x7F:
                    return None
                at += 1
            end = mark
        if not is_same(self.path, request, end - request):
            path = PyBytes_FromStringAndSize(request, end - request)
            answer = self.answers.get(path)
            if answer is None:
                return None
            self.path, self.answer = path, answer
        return self.answer


cdef inline bint is_same(bytes known, const char *data, Py_ssize_t size) noexcept:
    if known is None or PyBytes_GET_SIZE(known) != size:
        return False
    return memcmp(PyBytes_AS_STRING(known), data, size) == 0


def serve_batch(pump, batch, buffer not None, double now, double until):
    """Visit who is in the batch, until that time; how many were."""
    cdef Py_buffer view
    cdef Py_ssize_t visited = 0
    cdef int mask
    cdef double ahead = now - monotonic()  # Of this clock, the pump's.
    cdef Table table = Table()
    popleft = batch.popleft
    PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
    try:
        while batch:
            connection, events = popleft()
            mask = events
            standing = connection.at_rest if mask == READABLE else None
            if standing is not None:
                try:
                    table.look(standing)
                    serve_at_rest(connection, table, buffer, &view, now)
                except Exception as error:
                    pump.fail(connection, error)
            elif mask == READABLE and connection.lost is None and not connection.handshaking:
                try:
                    connection.take_readable(buffer, now)
                except Exception as error:
                    pump.fail(connection, error)
            else:
                pump.visit(connection, mask, now)
            visited += 1
            now = ahead + monotonic()
            if now >= until:
                break
    finally:
        PyBuffer_Release(&view)
    return visited


cdef int serve_at_rest(
    connection, Table table, buffer, Py_buffer *view, double now
) except -1:
    """Read once, and send what stands for that; whatever else it is, is the connection's."""
    cdef int fd = connection.fd, held
    cdef ssize_t sent, count = recv(fd, view.buf, view.len, MSG_DONTWAIT)
    cdef Py_ssize_t size
    cdef off_t offset = 0
    if count < 0:
        count = -errno
    if count <= 0 or count > request_bytes_max or now >= table.until:
        connection.take_read(buffer, count, now)
        return 0
    answer = table.find(<const char *> view.buf, count)
    if answer is None:
        connection.take_read(buffer, count, now)
        return 0
    held, size = answer.fd, answer.size
    if held >= 0:
        sent = sendfile(fd, held, &offset, size)
    else:
        chunks = <tuple> answer.chunks
        if len(chunks) != 1:
            connection.take_read(buffer, count, now)
            return 0
        sent = send(fd, PyBytes_AS_STRING(chunks[0]), size, MSG_DONTWAIT | MSG_NOSIGNAL)
    if sent < 0:
        sent = -errno
    connection.note_stood(answer, count, size if sent == size else 0, now)
    if sent != size:
        connection.note_sent(sent, answer.chunks)
        if connection.out_bytes:
            table.standing.on_short(connection, answer, now)
    return 0


def set_timer(int fd, double after_s):
    """As `TimerFd.set`, of its descriptor."""
    cdef itimerspec spec
    cdef long long ns = max(<long long> (min(after_s, 1e9) * 1e9), 1)
    spec.it_interval.tv_sec = spec.it_interval.tv_nsec = 0
    spec.it_value.tv_sec, spec.it_value.tv_nsec = ns // 1000000000, ns % 1000000000
    if timerfd_settime(fd, 0, &spec, NULL):
        raise OSError(errno, strerror(errno))


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

