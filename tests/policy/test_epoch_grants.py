"""What a PoP grants: one IRS at a time, no epoch twice, and only what that one says is taken."""

import hypothesis
from hypothesis import strategies as st

from edged.media.epochs import EPOCH_LEASE_S, UNASKED, DrainNote, EpochAsk, IrsMemo
from edged.policy.epoch_grants import EpochGrants

A, B = "irs-a:1940", "irs-b:1940"


def ask(irs: str, kind: str = "want", epoch: int = 1, **more: object) -> EpochAsk:
    return EpochAsk(irs=irs, number=1, kind=kind, epoch=epoch, **more)  # type: ignore[arg-type]


def test_one_at_a_time_for_a_lease() -> None:
    grants = EpochGrants()
    first = grants.answer(ask("a"), A, 0.0)
    assert (first.granted, first.begins, first.epoch) == (True, True, 1)
    second = grants.answer(ask("b", epoch=2), B, 1.0)
    assert (second.granted, second.epoch, second.holder) == (False, 1, A)
    assert second.left_s == EPOCH_LEASE_S - 1.0
    renewed = grants.answer(ask("a"), A, 1.5)
    assert (renewed.granted, renewed.begins) == (True, False)
    late = 1.5 + EPOCH_LEASE_S
    assert not grants.answer(ask("b", epoch=2), B, late - 0.01).granted
    taken = grants.answer(ask("b", epoch=2), B, late)
    assert (taken.granted, taken.begins) == (True, True)
    assert grants.active(late) == B


def test_no_epoch_is_two_irs_s() -> None:
    grants = EpochGrants()
    assert grants.answer(ask("a", epoch=5), A, 0.0).granted
    same = grants.answer(ask("b", epoch=5), B, 10.0)
    assert (same.granted, same.left_s, same.epoch) == (False, 0.0, 5)
    assert grants.answer(ask("a", epoch=5), A, 10.0).granted, "it is still its own"
    assert not grants.answer(ask("a", epoch=4), A, 10.0).granted
    grants.saw(8)  # A table on disk.
    assert not grants.answer(ask("a", epoch=8), A, 10.0).granted
    assert grants.answer(ask("a", epoch=9), A, 10.0).granted


def test_looking_changes_nothing_and_a_release_lets_others_in() -> None:
    grants = EpochGrants()
    assert not grants.answer(ask("a", "look"), A, 0.0).granted
    assert grants.answer(ask("b", epoch=1), B, 0.0).granted
    assert grants.answer(ask("a", "release", 1), A, 0.1).left_s > 0, "it is not a's to give back"
    assert grants.active(0.1) == B
    assert grants.answer(ask("b", "release", 1), B, 0.2).left_s == 0
    assert grants.active(0.2) == ""
    assert grants.answer(ask("a", epoch=2), A, 0.2).granted


def test_of_a_release_the_others_that_ask_hear_once() -> None:
    grants = EpochGrants()
    grants.answer(ask("a"), A, 0.0)
    assert grants.take_notices(0.0) == []
    grants.answer(ask("b", "look"), B, 0.0)
    grants.answer(ask("b", "release"), B, 0.1)
    assert grants.take_notices(0.1) == [], "it was not b's"
    grants.answer(ask("a", "release"), A, 0.2)
    ((whom, notice),) = grants.take_notices(0.2)
    assert whom == B
    assert (notice.number, notice.granted, notice.epoch, notice.left_s) == (UNASKED, False, 1, 0.0)
    assert grants.take_notices(0.2) == []
    grants.answer(ask("a", "release"), A, 0.3)
    assert grants.take_notices(0.3) == [], "nobody had it"
    grants.answer(ask("a", epoch=2), A, 0.4)
    grants.answer(ask("a", "release", 2), A, 0.5)
    grants.answer(ask("b", epoch=3), B, 0.5)
    assert grants.take_notices(0.5) == [], "it is taken again already"
    grants.session_ended(A)
    grants.answer(ask("b", "release", 3), B, 0.6)
    assert grants.take_notices(0.6) == [], "nobody else asks"


def test_only_who_has_the_grant_is_believed() -> None:
    grants = EpochGrants()
    assert grants.why_not(A, 0.0, 7) == "", "it is from before epochs were granted"
    grants.answer(ask("b", epoch=9), B, 0.0)
    assert f"{B} has it" in grants.why_not(A, 0.0, 7)
    assert grants.why_not(B, 0.0, 9) == grants.why_not(B, 0.0) == ""
    assert grants.why_not(B, 0.0, 8) == "epoch 8 is not granted, 9 is"
    assert "nobody has it now" in grants.why_not(B, EPOCH_LEASE_S)
    assert grants.why_not(A, EPOCH_LEASE_S) == ""


def test_a_new_session_of_the_same_irs_begins_anew() -> None:
    grants = EpochGrants()
    grants.answer(ask("a"), A, 0.0)
    grants.session_ended(A)
    assert "another irs has it" in grants.why_not(B, 0.1), "as long as it was granted"
    assert grants.active(0.1) == ""
    assert grants.answer(ask("a"), A, 0.2).begins
    assert grants.why_not(A, 0.2, 1) == ""


def test_a_memo_is_shown_to_who_has_an_older_one() -> None:
    grants = EpochGrants()
    note = DrainNote(origin="fra1", since=1.0, until=60.0, left_s=59.0, by="me")
    memo = IrsMemo(epoch=3, revision=2, drains=(note,))
    grants.keep(memo, 10.0)
    grants.keep(IrsMemo(epoch=3, revision=1), 11.0)
    shown = grants.answer(ask("b", "look", memo=(3, 1)), B, 20.0)
    assert shown.stamp == (3, 2)
    assert shown.memo is not None
    assert [(each.origin, each.left_s) for each in shown.memo.drains] == [("fra1", 49.0)]
    assert grants.answer(ask("b", "look", memo=(3, 2)), B, 20.0).memo is None
    late = grants.answer(ask("b", "look"), B, 100.0).memo
    assert late is not None
    assert late.drains[0].left_s == 0.0


STEPS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(("look", "want", "release", "leave")),
        st.integers(1, 6),
        st.floats(0, 2),
    ),
    max_size=60,
)


@hypothesis.given(STEPS)
def test_of_any_asks_nobody_is_let_in_while_another_has_it(
    steps: list[tuple[str, str, int, float]],
) -> None:
    grants, now = EpochGrants(), 0.0
    holder, until, epochs = "", -1.0, dict[int, str]()
    for irs, kind, epoch, wait_s in steps:
        now += wait_s
        if kind == "leave":
            grants.session_ended(irs)
            continue
        answer = grants.answer(ask(irs, kind, epoch), irs, now)
        if answer.granted:
            assert kind == "want"
            assert now >= until or holder == irs
            assert epochs.setdefault(epoch, irs) == irs
            assert epoch == answer.epoch == max(epochs)
            holder, until = irs, now + EPOCH_LEASE_S
            assert grants.why_not(irs, now, epoch) == ""
        elif kind == "release" and holder == irs:
            until = now
        for other in "abc":
            if other != holder and now < until:
                assert grants.why_not(other, now) != ""
