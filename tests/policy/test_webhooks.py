import math
import random

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from edged.media.events import StreamWentLive, StreamWentOffline
from edged.policy.webhooks import (
    BACKOFF_S_MAX,
    BACKOFF_S_MIN,
    WEBHOOKS_MAX,
    Delivery,
    Outcome,
    WebhookConfig,
    WebhookQueue,
    choose_pause,
    find_problems,
    judge_answer,
    read_retry_after,
)

SECRET = "0123456789abcdef" * 2


def make_config(name: str = "studio", /, **settings: object) -> WebhookConfig:
    raw = {"name": name, "url": "https://example.net/token", "secret": SECRET, **settings}
    return msgspec.convert(raw, WebhookConfig)


def make_queue(**settings: object) -> WebhookQueue:
    return WebhookQueue(make_config("studio", **settings))


def live(channel: str = "alice", number: int = 0) -> StreamWentLive:
    return StreamWentLive(channel=channel, publication=f"{number:x}")


def taken(queue: WebhookQueue, now: float = 0.0) -> Delivery:
    delivery = queue.take(now)
    assert delivery is not None
    return delivery


RNG = random.Random(1)  # noqa: S311 - seeded


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (None, Outcome.FAILED),
        (200, Outcome.DELIVERED),
        (204, Outcome.DELIVERED),
        (299, Outcome.DELIVERED),
        (199, Outcome.FAILED),
        (301, Outcome.FAILED),
        (400, Outcome.REFUSED),
        (404, Outcome.REFUSED),
        (408, Outcome.FAILED),
        (410, Outcome.GONE),
        (429, Outcome.FAILED),
        (499, Outcome.REFUSED),
        (500, Outcome.FAILED),
        (503, Outcome.FAILED),
    ],
)
def test_what_answers_mean(status: int | None, outcome: Outcome) -> None:
    assert judge_answer(status) is outcome


@pytest.mark.parametrize(
    ("field", "seconds"),
    [("", 0), ("7", 7), ("601", 600), ("9" * 400, 600), ("-1", 0), ("Wed, 21 Oct", 0), ("²", 0)],
)
def test_retry_after(field: str, seconds: float) -> None:
    assert read_retry_after(field) == seconds


@hypothesis.given(st.integers(1, 10_000), st.integers())
def test_pauses_double_and_are_bounded(attempts: int, seed: int) -> None:
    pause = choose_pause(attempts, random.Random(seed))  # noqa: S311 - seeded
    whole = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2.0 ** min(attempts - 1, 40))
    assert whole / 2 <= pause <= whole


def test_problems_name_what_and_where_and_show_no_secret() -> None:
    bad = make_config(url="http://example.net/token", secret="short-secret")  # noqa: S106 - a bad one
    assert find_problems([make_config("a"), bad, make_config("a")]) == [
        "webhooks[1].url: http:// is allowed only to loopback; use https://",
        "webhooks[1].secret: 12 characters, at least 32 are needed",
        "webhooks[2].name: 'a' is taken by webhooks[0]",
    ]
    assert find_problems([make_config(f"n{n}") for n in range(WEBHOOKS_MAX)]) == []
    assert find_problems([make_config(f"n{n}") for n in range(WEBHOOKS_MAX + 1)]) == [
        "webhooks: 33 exceed 32"
    ]
    for shown in (repr(bad), str(bad.__rich_repr__())):
        assert "token" not in shown
        assert "short-secret" not in shown


def test_a_filter() -> None:
    offline = StreamWentOffline(channel="alice", publication="1")
    queue = make_queue(events=["stream_went_offline"])
    assert queue.wants(offline)
    assert not queue.wants(live())
    assert make_queue().wants(live())
    with pytest.raises(msgspec.ValidationError):
        make_queue(events=["stream_exploded"])


def test_a_channel_s_events_wait_for_each_other_and_for_no_other_channel() -> None:
    queue = make_queue()
    for number, channel in enumerate(["alice", "alice", "bob"]):
        queue.push(live(channel, number), b"%d" % number, 0.0)
    first, third = taken(queue), taken(queue)
    assert (first.body, third.body) == (b"0", b"2")
    assert queue.take(0.0) is None
    assert queue.next_timeout() == math.inf
    assert not queue.settle(first, Outcome.FAILED, 0.0, RNG)
    assert 0.5 <= queue.next_timeout() <= 1.0
    assert queue.take(0.0) is None  # The second waits though it has not failed.
    again = taken(queue, 1.0)
    assert again is first
    assert not queue.settle(again, Outcome.DELIVERED, 1.0, RNG)
    assert taken(queue, 1.0).body == b"1"


def test_fresh_is_what_has_not_failed() -> None:
    queue = make_queue(concurrency_max=1)
    assert not queue.is_fresh
    queue.push(live("alice"), b"", 0.0)
    queue.push(live("bob"), b"", 0.0)
    first = taken(queue)
    assert queue.is_fresh
    queue.settle(first, Outcome.FAILED, 0.0, RNG)
    assert queue.is_fresh  # Bob's.
    second = taken(queue)
    assert queue.is_fresh
    queue.settle(second, Outcome.FAILED, 0.0, RNG)
    assert not queue.is_fresh
    again = taken(queue, 10.0)
    assert not queue.is_fresh
    queue.push(live("alice"), b"", 10.0)
    queue.push(live("bob"), b"", 10.0)
    assert not queue.is_fresh  # They wait for what has failed.
    queue.settle(again, Outcome.DELIVERED, 10.0, RNG)
    assert queue.is_fresh


def test_concurrency_has_its_limit() -> None:
    queue = make_queue(concurrency_max=2)
    for channel in "abc":
        queue.push(live(channel), b"", 0.0)
    first, _ = taken(queue), taken(queue)
    assert queue.under_way == 2
    assert queue.take(0.0) is None
    queue.settle(first, Outcome.DELIVERED, 0.0, RNG)
    assert taken(queue).event.channel == "c"


def test_a_full_queue_drops_the_oldest_that_is_not_under_way() -> None:
    queue = make_queue(queue_max=3)
    for number in range(3):
        queue.push(live("alice", number), b"%d" % number, 0.0)
    first = taken(queue)
    queue.push(live("bob"), b"bob", 0.0)
    assert (len(queue), queue.statistics.dropped) == (3, 1)
    queue.settle(first, Outcome.DELIVERED, 0.0, RNG)
    assert {taken(queue).body, taken(queue).body} == {b"2", b"bob"}


def test_all_under_way_the_newest_is_dropped() -> None:
    queue = make_queue(queue_max=1)
    queue.push(live("a"), b"a", 0.0)
    first = taken(queue)
    queue.push(live("b"), b"b", 0.0)
    assert (len(queue), queue.statistics.dropped) == (1, 1)
    assert not queue.settle(first, Outcome.DELIVERED, 0.0, RNG)
    assert queue.take(0.0) is None


def test_what_waited_first_and_was_dropped_is_not_taken() -> None:
    queue = make_queue(queue_max=1)
    queue.push(live("a"), b"a", 0.0)
    queue.push(live("b"), b"b", 0.0)
    assert taken(queue).body == b"b"


def test_it_is_tried_for_so_long() -> None:
    queue, now = make_queue(retry_for_s=100), 0.0
    queue.push(live(), b"", 0.0)
    queue.push(live(), b"next", 0.0)
    attempts = 0
    while True:
        delivery = taken(queue, now)
        if delivery.body == b"next":
            break
        attempts += 1
        is_lost = queue.settle(delivery, Outcome.FAILED, now, RNG)
        if not is_lost:
            now = queue.next_timeout()
            assert now <= 100
    assert 6 <= attempts <= 9
    assert queue.statistics.given_up == 1
    assert queue.statistics.failed == attempts


def test_with_no_time_to_retry_there_is_one_attempt() -> None:
    queue = make_queue(retry_for_s=0)
    queue.push(live(), b"", 0.0)
    assert queue.settle(taken(queue), Outcome.FAILED, 0.0, RNG)
    assert len(queue) == 0


def test_the_receiver_may_ask_for_a_longer_pause() -> None:
    queue = make_queue()
    queue.push(live(), b"", 0.0)
    queue.settle(taken(queue), Outcome.FAILED, 0.0, RNG, retry_after_s=30.0)
    assert queue.next_timeout() == 30.0


def test_refused_is_lost_at_once_and_the_next_goes() -> None:
    queue = make_queue()
    queue.push(live(), b"1", 0.0)
    queue.push(live(), b"2", 0.0)
    assert queue.settle(taken(queue), Outcome.REFUSED, 0.0, RNG)
    assert taken(queue).body == b"2"
    assert queue.statistics.refused == 1


def test_gone_is_gone() -> None:
    queue = make_queue()
    for channel in "abc":
        queue.push(live(channel), b"", 0.0)
    first, second = taken(queue), taken(queue)
    assert queue.settle(first, Outcome.GONE, 0.0, RNG)
    assert not queue.settle(second, Outcome.DELIVERED, 0.0, RNG)
    queue.push(live(), b"", 0.0)
    assert queue.disabled
    assert (len(queue), queue.take(0.0), queue.next_timeout()) == (0, None, math.inf)
    assert queue.statistics.unwanted == 4
    assert queue.under_way == 0


def test_another_configuration_goes_on_with_what_is_queued() -> None:
    older = make_queue()
    for number in range(3):
        older.push(live("alice", number), b"%d" % number, float(number))
    taken(older)
    newer = make_queue(events=["stream_went_live"])
    newer.take_over(older)
    assert [newer.statistics is older.statistics, len(newer)] == [True, 3]
    assert taken(newer).body == b"0"
    other = make_queue(events=["title_changed"])
    other.take_over(older)
    assert len(other) == 0


@hypothesis.given(
    st.lists(
        st.one_of(
            st.tuples(st.just("push"), st.sampled_from("abc")),
            st.tuples(st.just("take"), st.floats(0, 30)),
            st.tuples(
                st.sampled_from([Outcome.DELIVERED, Outcome.FAILED, Outcome.REFUSED]),
                st.integers(0, 9),
            ),
        ),
        max_size=200,
    ),
    st.integers(1, 6),
    st.integers(1, 3),
)
def test_whatever_happens_order_and_limits_hold(
    steps: list[tuple[object, object]], queue_max: int, concurrency_max: int
) -> None:
    queue = make_queue(queue_max=queue_max, concurrency_max=concurrency_max, retry_for_s=40)
    rng, now, pushed = random.Random(7), 0.0, 0  # noqa: S311 - seeded
    under_way: list[Delivery] = []
    last_started: dict[str, int] = {}
    for what, argument in steps:
        if what == "push":
            pushed += 1
            queue.push(live(str(argument), pushed), b"%d" % pushed, now)
        elif what == "take":
            assert isinstance(argument, float)
            now += argument
            due = queue.next_timeout()
            delivery = queue.take(now)
            assert (delivery is not None) == (due <= now)
            if delivery is not None:
                channel, number = delivery.event.channel, int(delivery.body)
                assert channel not in {one.event.channel for one in under_way}
                assert number >= last_started.get(channel, 0)  # Again, or the next; never back.
                last_started[channel] = number
                under_way.append(delivery)
        elif under_way:
            assert isinstance(what, Outcome)
            assert isinstance(argument, int)
            queue.settle(under_way.pop(argument % len(under_way)), what, now, rng)
        assert len(queue) <= queue_max
        assert queue.under_way == len(under_way) <= concurrency_max
        counts = queue.statistics
        over = counts.delivered + counts.dropped + counts.given_up + counts.refused
        assert over + len(queue) == pushed
    for delivery in under_way:
        queue.settle(delivery, Outcome.DELIVERED, now, rng)
    while len(queue):  # Nothing is stuck.
        now = max(now, queue.next_timeout())
        assert now < math.inf
        queue.settle(taken(queue, now), Outcome.DELIVERED, now, rng)
