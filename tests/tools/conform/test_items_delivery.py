from msgspec.structs import replace

from edged.tools.conform.answer import Answer
from edged.tools.conform.observe import Observation
from tests.tools.conform.faulty import Change, Fault, change_part, change_probe, finds, verdict


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
    for msn, piece in seen.main.segments.items():
        answer = without(piece.answer, "cache-control")
        seen.main.segments[msn] = replace(piece, answer=answer)


def _plain_multivariant(seen: Observation) -> None:
    assert seen.multivariant_answer is not None
    seen.multivariant_answer = without(seen.multivariant_answer, "content-encoding")


def _packed_otherwise(seen: Observation) -> None:
    body = seen.probes["identity"].body
    change_probe("gzip", body=body + b"#EXT-X-OF-ITS-OWN\n")(seen)


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
    (31, change_link(h2_problem="RST_STREAM"), "fail", "ALPN chose h2, but RST_STREAM"),
    (32, change_playlist("content-encoding"), "fail", "Content-Encoding is not there"),
    (32, _packed_otherwise, "fail", "than without gzip: '#EXT-X-OF-ITS-OWN', not"),
    (32, _plain_multivariant, "fail", "master.m3u8: Content-Encoding"),
    (32, change_probe("identity", fields=(("content-encoding", "gzip"),)), "fail",
     "Content-Encoding gzip, identity was asked"),
    (32, change_probe("gzip", body=b"<html>"), "fail", "the first line is"),
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
]  # fmt: skip


test_faults_are_found = finds(FAULTS)


def test_reports_of_others_may_differ_from_answer_to_answer(good: Observation) -> None:
    body = good.probes["identity"].body
    change_probe("gzip", body=body + b'#EXT-X-RENDITION-REPORT:URI="z"\n')(good)
    assert verdict(good, 32).status == "pass"
    change_probe("gzip", body=b"#EXTM3U\n")(good)
    assert verdict(good, 32).status == "pass", "another version"


def test_http_3_may_be_there_instead(good: Observation) -> None:
    change_link(alpn="http/1.1")(good)
    change_playlist("alt-svc", 'h3=":443"')(good)
    found = verdict(good, 31)
    assert found.status == "not seen"
    assert "HTTP/3 is offered" in found.details[0]
