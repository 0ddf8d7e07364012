# Part of `fast.pyx`. Access units: what `tracks.TrackAssembler` does in the usual case, and no more
# than that. Whatever is unusual is declined before anything was changed, and the assembler's.


cdef class Tracks:
    """The usual tracks of a publication, as an AssemblerState has them, in machine integers.

    They are ahead of it from the first unit to `settle`.
    """

    cdef readonly object media
    cdef Clock _video
    cdef Clock _audio
    cdef int64_t _last  # The unroller's.
    cdef int64_t _units
    cdef int64_t _unit_bytes

    def __init__(self, media):
        self.media = media
        self._units = self._unit_bytes = 0
        unrolled = media.unroller.value
        if unrolled is None or not -MS_MAX < unrolled < MS_MAX:
            return  # Both stay None: nothing is usual.
        self._last = unrolled
        self._video = _make_clock(media.tracks.get(VIDEO_TRACK), H264, 4)
        self._audio = _make_clock(media.tracks.get(AUDIO_TRACK), AAC, 0)

    cdef settle(self):
        if not self._units:
            return
        self.media.units += self._units
        self.media.unit_bytes += self._unit_bytes
        self.media.unroller.value = self._last
        for clock in (self._video, self._audio):
            if clock is not None:
                (<Clock> clock).settle()

    cdef object make_unit(self, Stream stream):
        """The unit that the message is, or None if that is the assembler's to say."""
        cdef const unsigned char *head = stream.head
        cdef Clock clock
        cdef int64_t shift_ms = 0, wire_ms
        cdef bint key = True
        if stream.body is None:
            return None
        if stream.kind == VIDEO:
            clock = self._video
            key = head[0] == AVC_KEY
            if clock is None or (not key and head[0] != AVC_INTER) or head[1] != 1:
                return None
            shift_ms = <int64_t> head[2] << 16 | <int64_t> head[3] << 8 | head[4]
            if shift_ms >= 1 << 23:
                shift_ms -= 1 << 24
            if stream.head_bytes != VIDEO_HEAD or not _nals_fit(stream.body):
                return None
        elif stream.kind == AUDIO:
            clock = self._audio
            if clock is None or head[0] >> 4 != AAC_SOUND or head[1] != 1:
                return None
            if stream.head_bytes != AUDIO_HEAD:
                return None
        else:
            return None
        # Of the times with these 32 bits the nearest to the last one: a signed difference.
        wire_ms = self._last + <int64_t> <int32_t> (stream.timestamp - <uint32_t> self._last)
        if not -MS_MAX < wire_ms < MS_MAX or not clock.advance(wire_ms, shift_ms):
            return None
        self._last = wire_ms
        self._units += 1
        self._unit_bytes += PyBytes_GET_SIZE(stream.body)
        random_access = key
        if key and stream.kind == VIDEO:
            random_access = h264.is_random_access(stream.body)
        return clock.new_unit(stream.body, random_access)


cdef Clock _make_clock(state, codec, length_size):
    """None for a track that is not the usual one."""
    cdef Clock clock
    if state is None or not state.announced or state.length_size != length_size:
        return None
    if state.track.codec is not codec or state.last_ms is None:
        return None
    clock = Clock(state)
    return clock if clock.usual else None


cdef class Clock:
    """One track's times: a TrackState and its FrameGrid, whose names these are."""

    cdef object _state
    cdef object _track_id
    cdef object _config_id
    cdef bint usual
    cdef int64_t _timescale
    cdef int64_t _last_ms
    cdef int64_t _last_dts
    cdef bint _on_grid
    cdef int64_t _anchor
    cdef int64_t _num
    cdef int64_t _den
    cdef int64_t _tolerance
    cdef int64_t _index
    cdef int64_t _last
    cdef int64_t _pts  # Of the unit last counted.

    def __init__(self, state):
        track, grid = state.track, state.grid
        self._state = state
        self._track_id, self._config_id = track.track_id, track.config_id
        self._timescale = track.timescale
        self._last_ms, self._last_dts = state.last_ms, state.last_dts
        self.usual = 0 < self._timescale <= TIMESCALE_MAX
        self._on_grid = grid is not None
        if not self._on_grid:
            return
        if grid.anchor is None or not 0 < grid.frame_num < FRAME_NUM_MAX:
            self.usual = False
        elif not 0 < grid.frame_den < FRAME_DEN_MAX:
            self.usual = False
        else:
            self._anchor, self._num, self._den = grid.anchor, grid.frame_num, grid.frame_den
            self._tolerance, self._index, self._last = grid.tolerance, grid.index, grid.last

    cdef settle(self):
        self._state.last_ms, self._state.last_dts = self._last_ms, self._last_dts
        if self._on_grid:
            self._state.grid.index, self._state.grid.last = self._index, self._last

    cdef bint advance(self, int64_t wire_ms, int64_t shift_ms) noexcept:
        """Go on to the unit of that time, as `tracks._times`; False, unchanged, if it is unusual."""
        cdef int64_t ticks, dts, index = 0
        if not -BACK_MS <= wire_ms - self._last_ms <= AHEAD_MS:
            return False
        ticks = dts = _ticks(wire_ms, self._timescale)
        if self._on_grid:
            if not -SPAN_MAX < ticks - self._anchor < SPAN_MAX:
                return False
            index = self._frame_at(ticks)
            dts = self._time_of(index)
            if not self._near(ticks, dts) or index <= self._index or dts <= self._last:
                return False
        if dts <= self._last_dts:
            return False
        self._pts = dts
        if shift_ms:
            self._pts = self._shifted(_ticks(wire_ms + shift_ms, self._timescale))
            if shift_ms > 0 and self._pts < dts:
                self._pts = dts
        self._last_ms, self._last_dts = wire_ms, dts
        if self._on_grid:
            self._index, self._last = index, dts
        return True

    cdef inline int64_t _shifted(self, int64_t ticks) noexcept:
        """A presentation time on the grid, if it is near it."""
        cdef int64_t exact
        if not self._on_grid:
            return ticks
        exact = self._time_of(self._frame_at(ticks))
        return exact if self._near(ticks, exact) else ticks

    cdef inline int64_t _frame_at(self, int64_t ticks) noexcept:
        return _floor(2 * (ticks - self._anchor) * self._den + self._num, 2 * self._num)

    cdef inline int64_t _time_of(self, int64_t index) noexcept:
        return self._anchor + _floor(2 * index * self._num + self._den, 2 * self._den)

    cdef inline bint _near(self, int64_t ticks, int64_t exact) noexcept:
        return -self._tolerance <= ticks - exact <= self._tolerance

    cdef object new_unit(self, bytes payload, random_access):
        """The unit last counted; a call by position in an array, as there are thousands."""
        cdef object pts = self._pts
        cdef object dts = pts if self._pts == self._last_dts else self._last_dts
        cdef PyObject *fields[6]
        fields[0] = <PyObject *> self._track_id
        fields[1] = <PyObject *> self._config_id
        fields[2] = <PyObject *> pts
        fields[3] = <PyObject *> dts
        fields[4] = <PyObject *> payload
        fields[5] = <PyObject *> random_access
        return PyObject_Vectorcall(MAKE_UNIT, fields, 6, NULL)


cdef inline int64_t _floor(int64_t value, int64_t by) noexcept:
    """`value // by` as in Python, for `by` > 0."""
    cdef int64_t quotient = value / by
    return quotient - 1 if value % by < 0 else quotient


cdef inline int64_t _ticks(int64_t ms, int64_t timescale) noexcept:
    return _floor(2 * ms * timescale + 1000, 2000)


cdef bint _nals_fit(bytes payload) noexcept:
    """Whether 4-byte lengths add up to the payload, as `nal.check_length_prefixed` wants it."""
    cdef const unsigned char *data = <const unsigned char *> PyBytes_AS_STRING(payload)
    cdef Py_ssize_t position = 0, end = PyBytes_GET_SIZE(payload), count = 0
    while end - position >= 4:
        position += 4 + <Py_ssize_t> _u32(data + position)
        count += 1
    return position == end and count <= NALS_MAX
