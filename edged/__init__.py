"""`edged`: the edge of a live-streaming network in one Trio process."""

__version__ = "0.1.0"
