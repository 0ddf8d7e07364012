"""What is counted of a live publication's tracks."""


class TrackStatistics:
    """Counters of one track."""

    __slots__ = (
        *("gop_started_us", "gop_us", "jump_ticks", "jumps", "last_dts", "payload_bytes"),
        *("random_accesses", "splices", "step_ticks", "uneven_ticks", "units"),
    )

    def __init__(self, *, units: int = 0, payload_bytes: int = 0, gop_us: int = 0) -> None:
        self.units = units
        self.payload_bytes = payload_bytes
        self.random_accesses = 0
        self.last_dts = 0
        self.gop_us = gop_us  # Length of the last whole GOP.
        self.gop_started_us = 0
        self.jumps = 0  # Units that did not follow the one before, whoever noticed it.
        self.jump_ticks = 0  # From the unit before to the last of them; below 0: back.
        self.step_ticks = 0  # From the unit before the last to the last.
        self.uneven_ticks = 0  # By how much each step differed from the one before it, in all.
        self.splices = 0  # The same as `jumps` where another publisher went on with the run.
