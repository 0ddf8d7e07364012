"""What IRS keeps on disk of its own work, for those who look at it later."""

from edged.irs.history import HistoryConfig
from edged.irs.journal import JournalConfig
from edged.irs.links import BackboneConfig


class KeepingConfig(BackboneConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of `[irs]`: its plans, and what the network was asked for."""

    journal: JournalConfig | None = None
    history: HistoryConfig | None = None
