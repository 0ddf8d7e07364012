from msgspec.structs import replace

from edged.tools.conform.client import Answer
from edged.tools.conform.observe import Observation
from tests.tools.conform.faulty import Change, Fault, change_part, change_probe, finds


def change_link(**changes: object) -> Change:
    """Another connection."""

    def change(seen: Observation) -> None:
        assert seen.link is not None
        seen.link = replace(seen.link, **changes)

    return change


def without(answer: Answer, name: str) -> Answer:
    return replace(answer, fields=tuple(one for one in answer.fields if one[0] != name))


def change_playlist(name: str, value: str | None = None) -> Change:
    """Another field of the last playlist."""

    def change(seen: Observation) -> None:
        last = seen.main.seen[-1]
        answer = without(last.answer, name)
        fields = answer.fields if value is None else (*answer.fields, (name, value))
        seen.main.seen[-1] = replace(last, answer=replace(answer, fields=fields))

    return change


def _media_is_not_cached(seen: Observation) -> None:
    for msn, answer in seen.main.segments.items():
        seen.main.segments[msn] = without(answer, "cache-control")


def _plain_multivariant(seen: Observation) -> None:
    assert seen.multivariant_answer is not None
    seen.multivariant_answer = without(seen.multivariant_answer, "content-encoding")


def _long_gops(seen: Observation) -> None:
    """No part but the first and the last is independent, three seconds apart."""
    listed = [s for s in seen.main.last.segments if s.parts]
    for segment in listed[1:-1]:
        for index in range(len(segment.parts)):
            change_part(seen, segment.msn, index, independent=False)


FAULTS: list[Fault] = [
    (31, change_link(alpn="http/1.1"), "fail", "ALPN chose http/1.1"),
    (31, change_link(alpn=""), "fail", "ALPN chose nothing"),
    (31, change_link(tls=""), "fail", "plain HTTP"),
    (32, change_playlist("content-encoding"), "fail", "v0.m3u8: not gzip"),
    (32, _plain_multivariant, "fail", "the multivariant playlist"),
    (33, change_playlist("cache-control", "no-cache"), "warn", "blocking playlist: max-age None"),
    (33, change_playlist("cache-control", "max-age=9"), "warn", "max-age 9, 24 is recommended"),
    (33, change_probe("plain", fields=()), "warn", "non-blocking playlist: max-age None, 2"),
    (33, change_probe("unknown", fields=()), "warn", "404: max-age None, 4"),
    (33, change_probe("unknown playlist", fields=()), "warn", "404 of a blocking playlist"),
    (33, _media_is_not_cached, "warn", "media: max-age None"),
    (34, change_link(tls="TLSv1.2"), "warn", "TLSv1.2, not TLS 1.3"),
    (34, change_link(timestamps=False), "warn", "no TCP timestamps"),
    (34, change_link(ecn=False), "warn", "no ECN"),
    (35, change_link(rtt_s=0.5), "warn", "the round trip takes 0.500 s"),
    (35, _long_gops, "warn", "from one independent part to the next"),
    (36, change_playlist("access-control-allow-origin"), "warn", "playlist: no access-control"),
    (36, change_playlist("access-control-expose-headers"), "warn", "age is not exposed"),
]


test_faults_are_found = finds(FAULTS)
