"""Where the streams of a group are, those of other PoPs included: learnt from the directory."""

from edged.backbone.directory import DirectoryRecord
from edged.policy.pop_view import PopView


class GroupTags:
    """What the view knows of tags elsewhere; those of our own streams are counted as placed."""

    def __init__(self, view: PopView) -> None:
        self._view = view
        self.learnt: dict[str, tuple[str, tuple[str, ...]]] = {}  # Channel -> origin, tags.

    def learn(self, channel: str, record: DirectoryRecord | None) -> None:
        """Note where a channel's tags are; None: nowhere, or it is one of ours."""
        known = self.learnt.pop(channel, None)
        if known is not None:
            self._view.learn_tags(*known, -1)
        if record is not None and record.entry.tags:
            learnt = self.learnt[channel] = (record.origin, record.entry.tags)
            self._view.learn_tags(*learnt)
