"""onMetaData of a publication, as encoders send it (E-RTMP v2, "Enhancing onMetaData")."""

from edged.media.track import Kind, Track
from edged.wire.rtmp import AmfValue


def track_metadata(tracks: list[Track]) -> dict[str, AmfValue]:
    """What onMetaData says: the first track of each kind, and the others by their numbers on the
    wire (E-RTMP v2). Servers show it; ours reads names, and the codec configurations otherwise.
    """
    values: dict[str, AmfValue] = {"encoder": "edged publish"}
    for kind, key in ((Kind.VIDEO, "videoTrackIdInfoMap"), (Kind.AUDIO, "audioTrackIdInfoMap")):
        same = [track for track in tracks if track.kind is kind]
        if same:
            values |= _describe(same[0])
        others: dict[str, AmfValue] = {
            str(number): _describe(track) | _names(track)
            for number, track in enumerate(same)
            if number or _names(track)
        }
        if others:
            values[key] = others
    return values


def _describe(track: Track) -> dict[str, AmfValue]:
    config = track.config
    if track.kind is not Kind.VIDEO:
        return {
            "audiosamplerate": float(config.sample_rate),
            "audiochannels": float(config.channels),
        }
    values: dict[str, AmfValue] = {"width": float(config.width), "height": float(config.height)}
    if config.frame_rate_num:
        values["framerate"] = config.frame_rate_num / config.frame_rate_den
    return values


def _names(track: Track) -> dict[str, AmfValue]:
    values: dict[str, AmfValue] = {}
    if track.language != "und":
        values["language"] = track.language
    if track.name:
        values["title"] = track.name
    return values
