"""A PoP's playback rights: the gate before its playback, and its keys, by the configuration."""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from edged.config import Config
from edged.playback.hls import HlsService
from edged.playback.http import HttpServer
from edged.playback.rights import RightsGate, make_open
from edged.policy.playback_rights import PlaybackRights, RightsConfig
from edged.policy.rate_limit import parse_networks
from edged.runtime.metrics import Metrics, MetricSpec, Sample

if TYPE_CHECKING:
    from edged.playback.token_keys import TokenKeys


class RightsOffice:
    """Who may play what, live reloaded."""

    def __init__(self, config: Config, server: HttpServer, hls: HlsService) -> None:
        """Mounts playback; raises `ConfigError` for keys that cannot be used."""
        self._playlist_s = config.playback.hls.playlist_s
        self._keys: TokenKeys | None = None
        self.gate = RightsGate(
            server,
            hls,
            proxies=parse_networks(config.api.trusted_proxies),
            unix_now=time.time,
            window_s=lambda: self._playlist_s,
        )
        self.prepare_reload(config)()

    def prepare_reload(self, new: Config) -> Callable[[], None]:
        """Read the keys, and return what takes them into use; raises `ConfigError`.

        With the same keys and rules nothing is verified again; with others each token is, once.
        """
        config = new.playback.rights
        keys = _read_keys(config)
        same = config == self.gate.rights.config and keys == self._keys
        rights = make_open() if keys is None else PlaybackRights(config, keys.verify)

        def take() -> None:
            self._playlist_s = new.playback.hls.playlist_s
            self._keys = keys
            if not same:
                self.gate.use(rights)

        return take

    def register(self, metrics: Metrics, *, role: str) -> None:
        """Add the metrics."""

        def read() -> Iterator[Sample]:
            labels, told = {"role": role}, self.gate.statistics()
            yield Sample("edged_playback_tokens_held", told.held, labels)
            yield Sample("edged_playback_tokens_verified_total", told.verified_total, labels)
            yield Sample("edged_playback_rights_granted_total", told.granted_total, labels)
            for code, count in told.refused_total.items():
                refused = {**labels, "code": code}
                yield Sample("edged_playback_rights_refused_total", count, refused)

        metrics.register(SPECS, read)


def _read_keys(config: RightsConfig) -> "TokenKeys | None":
    """The keys; None where nothing is protected, and then nothing is imported for them."""
    if not config.channels:
        return None
    from edged.playback.token_keys import read_keys  # noqa: PLC0415 - 40 ms for few

    return read_keys(config)


SPECS = (
    MetricSpec(
        name="edged_playback_tokens_held",
        help="Tokens of viewers that are verified and held now.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_playback_tokens_verified_total",
        help="Tokens whose signature was verified: each once, while it is held.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_playback_rights_granted_total",
        help="Requests for protected channels that showed a good token.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_playback_rights_refused_total",
        help="The same that were refused, by why.",
        labels=("role", "code"),
    ),
)
