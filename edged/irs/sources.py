"""The contract between IRS and a failure source, the same for the built-in one and for yours.

Beside what IRS finds out by itself (heartbeats, paths), others may know of an origin or a link that
is not to be used. A source is made by a `SourcePlugin` found through the entry-point group
`edged.irs.sources`, from its own config Struct (table `[irs.sources.NAME]`). It is asked twice a
second what holds now, and answers from memory; whatever it has to wait for, it does in `run`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import structlog
import trio
from msgspec import Struct

from edged.policy.maintenance import MaintenanceCalendar, MaintenanceConfig
from edged.policy.restrictions import Restriction
from edged.runtime.metrics import MetricSpec, Sample
from edged.runtime.supervision import Supervisor

__all__ = ["FailureSource", "Restriction", "SourcePlugin"]

ASK_INTERVAL_S = 0.5
RESTRICTIONS_MAX = 10_000  # Of one source; those beyond are left out, which is said once.

METRICS = (
    MetricSpec(
        name="edged_irs_restrictions",
        help="Origins and links that a failure source says are not to be used, or in part",
        labels=("source",),
    ),
)

log = structlog.get_logger("edged.irs.sources")


class FailureSource(Protocol):
    """What knows of origins and links that are not to be used."""

    def restrictions(self, now_unix: float) -> Sequence[Restriction]:
        """Those in force; at once, without waiting for anything."""

    async def run(self) -> None:
        """Learn of them until cancelled; one that has nothing to wait for returns."""


class SourcePlugin(Struct, frozen=True, kw_only=True):
    """How a source is made; `make` raises ConfigError for a table that it cannot use."""

    name: str
    config_type: type[Struct]
    make: Callable[[Struct], FailureSource]


class FailureSources:
    """All sources in use."""

    def __init__(
        self,
        supervisor: Supervisor,
        now_unix: Callable[[], float],
        tell: Callable[[Sequence[Restriction]], None],
    ) -> None:
        """`tell` hears all that holds when that has changed."""
        self._now_unix, self._tell = now_unix, tell
        self.held: list[tuple[str, Restriction]] = []  # Source, what it says.
        self._supervisor = supervisor
        self._sources: dict[str, FailureSource] = {}
        self._scopes: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._failed: set[str] = set()
        self._crowded: set[str] = set()  # Those that say more than RESTRICTIONS_MAX.

    def use(self, sources: dict[str, FailureSource]) -> None:
        """Ask these from now on, and no others."""
        for scope in self._scopes.values():
            scope.cancel()
        self._scopes, self._sources, self._failed, self._crowded = {}, sources, set(), set()
        self._start()

    async def run(self) -> None:
        """Run them until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                self._start()
                while True:
                    self.update(self._now_unix())
                    await trio.sleep(ASK_INTERVAL_S)
            finally:
                self._nursery = None

    def update(self, now_unix: float) -> None:
        """Ask all of them; what began and what ended is logged, and planned with."""
        held = []
        for name, source in self._sources.items():
            held += [(name, each) for each in self._ask(name, source, now_unix)]
        if held == self.held:
            return
        before = {(name, each.said) for name, each in self.held}
        after = {(name, each.said) for name, each in held}
        for name, each in held:
            if (name, each.said) not in before:
                self._log("restriction begins", name, each)
        for name, each in self.held:
            if (name, each.said) not in after:
                self._log("restriction is over", name, each)
        self.held = held
        if before != after:  # Else it ends at another time: that is heard as it does.
            self._tell([each for _, each in held])

    def read_metrics(self) -> Iterable[Sample]:
        """Values of METRICS."""
        for name in self._sources:
            count = sum(source == name for source, _ in self.held)
            yield Sample("edged_irs_restrictions", count, {"source": name})

    def _ask(self, name: str, source: FailureSource, now_unix: float) -> list[Restriction]:
        """What a source says; one that fails, which is said once, restricts nothing."""
        try:
            told = dict.fromkeys(source.restrictions(now_unix))  # Once, if it says some twice.
            found = [each for each in told if each.holds(now_unix)]
        except Exception:  # Another's code: it may raise anything.
            if name not in self._failed:
                log.exception("failure source failed", source=name)
            self._failed.add(name)
            return []
        self._failed.discard(name)
        if len(found) <= RESTRICTIONS_MAX:
            self._crowded.discard(name)
        elif name not in self._crowded:
            self._crowded.add(name)
            log.warning("restrictions left out", source=name, count=len(found), of=RESTRICTIONS_MAX)
        return found[:RESTRICTIONS_MAX]

    def _start(self) -> None:
        if self._nursery is None:
            return
        for name, source in self._sources.items():
            scope = self._scopes[name] = trio.CancelScope()
            self._nursery.start_soon(self._keep, name, source, scope)

    async def _keep(self, name: str, source: FailureSource, scope: trio.CancelScope) -> None:
        with scope:
            await self._supervisor.keep("irs source", source.run, of=name)

    def _log(self, event: str, source: str, restriction: Restriction) -> None:
        log.info(
            event,
            source=source,
            kind=restriction.kind,
            name=restriction.name,
            usable=restriction.usable,
            reason=restriction.reason,
        )


class _Maintenance:
    """The calendar as a source: it waits for nothing."""

    def __init__(self, config: Struct) -> None:
        assert isinstance(config, MaintenanceConfig), "its own config Struct"
        self._calendar = MaintenanceCalendar(config.windows)

    def restrictions(self, now_unix: float) -> Sequence[Restriction]:
        return self._calendar.restrictions(now_unix)

    async def run(self) -> None:
        await trio.lowlevel.checkpoint()


maintenance = SourcePlugin(name="maintenance", config_type=MaintenanceConfig, make=_Maintenance)
