"""Fencing: of each channel only the newest (publication, home_epoch) is believed."""

from edged.media.stream import StreamId

CHANNELS_MAX = 100_000  # The least recently renewed are forgotten: a fence matters for minutes.


class Fence:
    """The newest run of each channel that this process has heard of, from whomever."""

    def __init__(self, channels_max: int = CHANNELS_MAX) -> None:
        self._channels_max = channels_max
        self._newest: dict[str, StreamId] = {}

    def admit(self, stream_id: StreamId) -> bool:
        """Whether this run is the newest so far, or the same as the newest; remembers it if so."""
        newest = self._newest.get(stream_id.channel)
        if newest is not None:
            if stream_id < newest:
                return False
            del self._newest[stream_id.channel]
        self._newest[stream_id.channel] = stream_id
        if len(self._newest) > self._channels_max:
            del self._newest[next(iter(self._newest))]
        return True

    def newest(self, channel: str) -> StreamId | None:
        """The newest run heard of."""
        return self._newest.get(channel)


def explain_fence(stream_id: StreamId, newest: StreamId, *, live: bool) -> str:
    """Why a run is fenced; `live`: the newest is in this process's hub now."""
    return (
        f"publication {stream_id.publication:x} epoch {stream_id.home_epoch} of "
        f"{stream_id.channel!r} is not newer than publication {newest.publication:x} "
        f"epoch {newest.home_epoch}, which "
        + ("is live here" if live else "has ended here or goes elsewhere")
    )
