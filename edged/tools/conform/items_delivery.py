"""Items 31 to 36: how it is delivered (RFC 8216bis B.1, Apple's authoring rules)."""

import re

from edged.tools.conform.client import Answer
from edged.tools.conform.item import Item, Judgement
from edged.tools.conform.observe import Observation, RenditionLog
from edged.wire.m3u8_reader import US

GOP_S_MAX = 2.0
GOP_S_SLACK = 0.1


def http2(seen: Observation) -> Judgement:
    """31."""
    assert seen.link is not None, "it was looked at first"
    if not seen.link.tls:
        return ["plain HTTP: browsers speak HTTP/2 over TLS only"]
    return [] if seen.link.alpn == "h2" else [f"ALPN chose {seen.link.alpn or 'nothing'}"]


def compressed(seen: Observation) -> Judgement:
    """32."""
    problems = [f"{log.name}: not gzip, though accepted" for log in seen.renditions
                if log.seen[-1].answer.get("content-encoding") != "gzip"]  # fmt: skip
    answer = seen.multivariant_answer
    if answer is not None and answer.get("content-encoding") != "gzip":
        problems.append("the multivariant playlist: not gzip, though accepted")
    return problems


def _max_age(answer: Answer) -> int | None:
    found = re.search(r"(?:s-maxage|max-age)=(\d+)", answer.get("cache-control"))
    return int(found[1]) if found is not None else None


def cached(seen: Observation) -> Judgement:
    """33."""
    log = seen.main
    target_s = log.last.target_duration_s or 0
    problems: list[str] = []

    def expect(what: str, answer: Answer | None, targets: float, *, status: int = 200) -> None:
        if answer is None or answer.status != status:
            return
        age, wanted = _max_age(answer), targets * target_s
        if age is None or abs(age - wanted) > 1:
            problems.append(f"{what}: max-age {age}, {wanted:g} is recommended")

    blocking = [one.answer for one in log.seen if one.asked is not None]
    ended = log.last.ended
    expect("blocking playlist", blocking[-1] if blocking and not ended else None, 6)
    expect("non-blocking playlist", None if ended else seen.probes.get("plain"), 0.5)
    expect("404 of a blocking playlist", seen.probes.get("unknown playlist"), 4, status=404)
    expect("404", seen.probes.get("unknown"), 1, status=404)
    media = [*log.segments.values(), *(part.answer for part in log.parts.values())]
    if media and media[0].status == 200 and (_max_age(media[0]) or 0) < 6 * target_s:  # noqa: PLR2004
        problems.append(f"media: max-age {_max_age(media[0])}, {6 * target_s} is recommended")
    return problems


def transport(seen: Observation) -> Judgement:
    """34."""
    link = seen.link
    assert link is not None, "it was looked at first"
    problems = []
    if link.tls != "TLSv1.3":
        problems.append(f"{link.tls or 'no TLS'}, not TLS 1.3")
    if not link.timestamps:
        problems.append("no TCP timestamps")
    if not link.ecn:
        problems.append("no ECN (our own host may not ask for it: net.ipv4.tcp_ecn)")
    return problems


def durations(seen: Observation) -> Judgement:
    """35."""
    assert seen.link is not None, "it was looked at first"
    problems: list[str] = []
    for log in seen.renditions:
        target_us = log.last.part_target_us
        if target_us is not None and target_us / US < seen.link.rtt_s:
            problems.append(f"PART-TARGET {target_us / US:g} s, the round trip takes "
                            f"{seen.link.rtt_s:.3f} s")  # fmt: skip
        if log.init is not None and log.init.handler == "vide":
            problems += [
                f"{log.name}: {gop_s:.2f} s from one independent part to the next"
                for gop_s in _gops_s(log)
                if gop_s > GOP_S_MAX + GOP_S_SLACK
            ][:1]
    return sorted(set(problems))


def _gops_s(log: RenditionLog) -> list[float]:
    """From one independent part to the next."""
    gops: list[float] = []
    since_us: int | None = None
    for segment in log.last.segments:
        for part in segment.parts:
            if part.independent:
                gops += [since_us / US] if since_us is not None else []
                since_us = 0
            if since_us is not None:
                since_us += part.duration_us
    return gops


def cors(seen: Observation) -> Judgement:
    """36."""
    log = seen.main
    answers = {"playlist": log.seen[-1].answer}
    if log.segments:
        answers["segment"] = next(iter(log.segments.values()))
    if log.parts:
        answers["part"] = next(iter(log.parts.values())).answer
    wanted = ("access-control-allow-origin", "timing-allow-origin")
    problems = [f"{what}: no {name}" for what, answer in answers.items()
                for name in wanted if not answer.get(name)]  # fmt: skip
    exposed = answers["playlist"].get("access-control-expose-headers").lower()
    problems += [f"playlist: {name} is not exposed" for name in ("age", "date")
                 if exposed != "*" and name not in exposed]  # fmt: skip
    return problems


ITEMS = (
    Item(31, "profile", "HTTP/2", http2),
    Item(32, "profile", "playlists are compressed", compressed),
    Item(33, "recommended", "cache times", cached),
    Item(34, "recommended", "TLS 1.3, TCP timestamps, ECN", transport),
    Item(35, "should", "PART-TARGET beyond the round trip, GOPs of 2 s at most", durations),
    Item(36, "recommended", "browsers of other sites may read it all", cors),
)
