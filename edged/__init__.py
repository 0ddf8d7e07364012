"""`edged`: the edge of a live-streaming network in one Trio process."""

from edged import native

__version__ = "0.1.0"

native.install()
