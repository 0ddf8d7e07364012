"""A policy reacts to nothing of itself, and so may be simulated by what it chooses alone."""

from edged.tools.simulate.policy import NOWHERE, Policy, Surroundings
from edged.tools.simulate.runner import MAKERS, run
from edged.tools.simulate.scenario import OriginDead, StaleTelemetry
from edged.tools.simulate.streams import Stream
from tests.tools.simulate.worlds import brief


class First(Policy):
    """Everything goes to one origin."""

    def choose(self, stream: Stream, now: float) -> int:
        return 0 if stream.pop else NOWHERE


def test_what_it_does_not_say_is_done_for_it() -> None:
    made: list[Policy] = []

    def make(around: Surroundings) -> Policy:
        made.append(First(around))
        assert sum(around.slots) == 200
        assert {link.load for link in around.links().values()} == {0.0}
        return made[-1]

    loaded = brief(
        OriginDead(at_h=0.01, for_h=0.01, origin="nyc1"),
        StaleTelemetry(at_h=0.01, for_h=0.01, age_s=5.0),
    )
    before = MAKERS["static"]
    MAKERS["static"] = make
    try:
        recorder = run(loaded, "static", 1)
    finally:
        MAKERS["static"] = before
    assert len(made) == 1
    assert sum(recorder.rejected_by_class) > 0
    assert all(not sum(row[1:]) for row in recorder.live), "only the first was chosen"
    assert not sum(recorder.live[0])
