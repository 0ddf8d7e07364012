"""Items 31 to 36: how it is delivered (RFC 8216bis B.1, Apple's authoring rules)."""

import itertools
import re

from edged.tools.conform.answer import Answer
from edged.tools.conform.item import (
    NO_PARTS,
    Item,
    Judgement,
    NotSeen,
    has_parts,
    playlist_of,
    settle,
)
from edged.tools.conform.observe import Observation, RenditionLog, edition_of
from edged.wire.m3u8_values import US

GOP_S_MAX = 2.0
ROUND_TRIPS = 3  # A part should last for so many.
GOP_S_SLACK = 0.1
REPORT = b"#EXT-X-RENDITION-REPORT"  # May have changed from one answer to the next.


def http2(seen: Observation) -> Judgement:
    """31."""
    assert seen.link is not None, "it was looked at first"
    link, answers = seen.link, [log.seen[-1].answer for log in seen.renditions]
    if not link.tls:
        return [f"{seen.url}: plain HTTP: browsers speak HTTP/2 over TLS only"]
    if link.alpn == "h2":
        return [f"ALPN chose h2, but {link.h2_problem}"] if link.h2_problem else []
    told = f"{seen.url}: ALPN chose {link.alpn or 'nothing'} of h2 and http/1.1"
    offers = [answer.get("alt-svc") for answer in answers if "h3" in answer.get("alt-svc")]
    if offers:
        return NotSeen(f"{told}; HTTP/3 is offered, which is not spoken here: {offers[0]}")
    return [told]


def compressed(seen: Observation) -> Judgement:
    """32."""
    named = [(log.seen[-1].answer.url, log.seen[-1].answer) for log in seen.renditions]
    if seen.multivariant_answer is not None:
        named.append((seen.url, seen.multivariant_answer))
    problems = [
        f"{url}: Content-Encoding {answer.get('content-encoding') or 'is not there'}, though gzip "
        "was accepted"
        for url, answer in named
        if answer.get("content-encoding") != "gzip"
    ]
    zipped, plain = seen.probes.get("gzip"), seen.probes.get("identity")
    if zipped is None or plain is None or zipped.get("content-encoding") != "gzip":
        return problems
    return problems + _same_body(zipped, plain)


def _same_body(zipped: Answer, plain: Answer) -> list[str]:
    """Whether a playlist is the same, packed and not."""
    if plain.get("content-encoding") not in ("", "identity"):
        return [
            f"{plain.url}: Content-Encoding {plain.get('content-encoding')}, identity was asked"
        ]
    first, second = playlist_of(zipped), playlist_of(plain)
    if isinstance(first, str) or isinstance(second, str):
        return [found for found in (first, second) if isinstance(found, str)]
    if edition_of(first) != edition_of(second):
        return []  # Another version.
    lines = [
        [line for line in answer.body.split(b"\n") if not line.startswith(REPORT)]
        for answer in (zipped, plain)
    ]
    if lines[0] == lines[1]:
        return []
    pairs = itertools.zip_longest(*lines, fillvalue=b"")
    unequal = next((ours, theirs) for ours, theirs in pairs if ours != theirs)
    return [
        f"{zipped.url}: unpacked it is another playlist than without gzip: "
        f"{unequal[0].decode(errors='replace')!r}, not {unequal[1].decode(errors='replace')!r}"
    ]


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
            problems.append(f"{what}: max-age {age}, {wanted:g} is recommended ({answer.url})")

    blocking = [one.answer for one in log.seen if one.asked is not None]
    ended = log.last.ended
    expect("blocking playlist", blocking[-1] if blocking and not ended else None, 6)
    expect("non-blocking playlist", None if ended else seen.probes.get("plain"), 0.5)
    expect("404 of a blocking playlist", seen.probes.get("unknown playlist"), 4, status=404)
    expect("404", seen.probes.get("unknown"), 1, status=404)
    media = [piece for piece in (*log.segments.values(), *log.parts.values()) if piece.came]
    if media and (_max_age(media[0].answer) or 0) < 6 * target_s:
        problems.append(
            f"media: max-age {_max_age(media[0].answer)}, {6 * target_s} is recommended "
            f"({media[0].answer.url})"
        )
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
        # How late we are ourselves is in what we took the round trip for.
        rtt_s = max(seen.link.rtt_s - seen.stall_s, 0.0)
        if target_us is not None and target_us / US < ROUND_TRIPS * rtt_s:
            least = "1 x at least" if target_us / US < rtt_s else f"{ROUND_TRIPS} x is better"
            problems.append(f"PART-TARGET {target_us / US:g} s, the round trip takes "
                            f"{seen.link.rtt_s:.3f} s: {least}")  # fmt: skip
        if log.has_video:
            problems += [
                f"{log.name}: {gop_s:.2f} s from one independent part to the next"
                for gop_s in _gops_s(log)
                if gop_s > GOP_S_MAX + GOP_S_SLACK
            ][:1]
    return settle(sorted(set(problems)), has_parts(seen), NO_PARTS)


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
        answers["segment"] = next(iter(log.segments.values())).answer
    if log.parts:
        answers["part"] = next(iter(log.parts.values())).answer
    wanted = ("access-control-allow-origin", "timing-allow-origin")
    problems = [f"{what}: no {name} ({answer.url})" for what, answer in answers.items()
                for name in wanted if not answer.get(name)]  # fmt: skip
    exposed = answers["playlist"].get("access-control-expose-headers").lower()
    url = answers["playlist"].url
    problems += [f"playlist: {name} is not exposed ({url})" for name in ("age", "date")
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
