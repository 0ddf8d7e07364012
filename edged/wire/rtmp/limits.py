"""What a publisher may make us hold or do, and for how long."""

from msgspec import Struct

CHUNK_BYTES_SMALL = 128  # The protocol's default (§5.4.1); smaller chunks count as messages.
CHUNK_BYTES_MAX = 0xFFFFFF  # No message is longer, so no greater value means anything else.


class RtmpLimits(Struct, frozen=True, kw_only=True):
    """Limits of one session. Past one the peer is refused (RemoteProtocolError) or timed out."""

    message_bytes_max: int = 8 * 2**20  # Above the largest 2160p60 IDR.
    buffered_bytes_max: int = (
        12 * 2**20
    )  # Messages begun on all chunk streams: a large one, others.
    chunk_streams_max: int = 32  # OBS uses 3, ffmpeg 5; a multitrack encoder a few more.
    messages_per_s_max: int = 8192  # Ten seconds of a large multitrack stream caught up at once.
    # Before publish is granted anyone may speak: what they may make us hold and decode is little.
    early_bytes_max: int = 256 * 1024  # Messages begun; encoders send no media before.
    early_commands_max: int = 64  # All that is not media; encoders send about eight.
    early_command_bytes_max: int = 16 * 1024  # In all; OBS's connect has 600 bytes.
    commands_per_s_max: int = 256  # Captions and time codes come with each frame.
    command_bytes_per_s_max: int = 128 * 1024  # An AMF value costs us about a microsecond a byte.
    held_bytes_max: int = 2**20  # Sent before the publish was answered: encoders wait for it.
    message_streams_max: int = 8  # createStream calls on a connection; encoders need one.
    tracks_max: int = 16  # Multitrack audio and video together.
    command_bytes_max: int = 64 * 1024  # Commands, data; real ones are below 4 KiB.
    handshake_timeout_s: float = 5.0
    publish_timeout_s: float = 10.0  # From the handshake's end to `publish`: a few round trips.
    media_silence_s_max: float = 10.0  # Without an access unit or a configuration.
