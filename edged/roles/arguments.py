"""What commands of the admin door bring as texts, read."""

from collections.abc import Mapping

from edged.errors import EdgedError


def read_seconds(arguments: Mapping[str, str], name: str, default: float, *, most: float) -> float:
    """A number of seconds; EdgedError for what is none, or not above 0 and up to `most`."""
    text = arguments.get(name)
    if text is None:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= most:
        raise EdgedError(f"{name} {text!r} is no number of seconds above 0 and up to {most:g}")
    return seconds
