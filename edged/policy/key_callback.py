"""The key callback: what another service is asked about a stream key, and what its answer means.

    POST URL {"app", "stream_key", "protocol", "peer", "encoder", "pop"}
    200 {"channel": "alice", "class": "partner", "title": "...", "tags": [...], "ladder": "default",
         "record": false, "category": "...", "labels": [...], "latency": "ultra",
         "expires_at": 1700000000}                           only `channel` is required
    401, 403, 404, with {"reason": "..."} if it likes        the key is not valid

Whatever else comes is no answer, and without one nobody is let in. An unknown field of a grant is
no answer either: a misspelt `expires_at` must not make a key that never ends. A latency class that
nobody knows is no reason to let nobody in: the channel gets the default. Answers are kept by
an HMAC of the key under a secret of this process, so the cache itself holds no key.
"""

import hashlib
import hmac
import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, structs

from edged.errors import EdgedError, PublishRefusedError
from edged.media.latency import DEFAULT
from edged.media.stream import DescriptionChange, Grant, PriorityClass
from edged.policy.descriptions import find_problem
from edged.policy.latency import find_label_problem
from edged.policy.outbound import hide
from edged.policy.stream_keys import REFUSED_UNKNOWN, Channel, ClassLabel, Tags, Title

LADDER_CHARS_MAX = 64
REASON_CHARS_MAX = 200  # What an encoder's window shows.
DETAIL_CHARS_MAX = 300  # Of a log line.
FIELD_CHARS_MAX = 256  # Of what an encoder says about itself.
ANSWER_OK = 200
ANSWERS_REFUSED = frozenset({401, 403, 404})

_UNAVAILABLE = "the stream key cannot be checked now; try again"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DOMAIN = b"edged key callback 1\n"


class KeyQuestion(Struct, frozen=True, kw_only=True):
    """Who wants to publish with which key. The answer is the same from any peer and encoder."""

    app: str
    stream_key: str
    protocol: str
    peer: str
    encoder: str = ""

    def __repr__(self) -> str:
        return f"KeyQuestion(app={self.app!r}, protocol={self.protocol!r}, peer={self.peer!r})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """The fields without the key, for rich's tracebacks."""
        return [("app", self.app), ("protocol", self.protocol), ("peer", self.peer)]


class KeyRefused(Struct, frozen=True):
    """The service says that the key is not valid."""

    reason: str


Verdict = Grant | KeyRefused


class NoAnswerError(EdgedError):
    """What came from the service is no answer; the text is for the log, and has no key in it."""


class _GrantAnswer(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"priority": "class"}
):
    channel: Channel
    priority: ClassLabel = "basic"
    title: Title = ""
    tags: Tags = ()
    ladder: Annotated[str, Meta(min_length=1, max_length=LADDER_CHARS_MAX)] = "default"
    record: bool = False
    playback: Literal["public"] = "public"
    expires_at: Annotated[float, Meta(gt=0, le=2**53)] | None = None
    category: str = ""
    labels: tuple[str, ...] = ()
    latency: str = DEFAULT


class _RefusalAnswer(Struct, frozen=True):
    reason: str = ""


_grant_decoder = msgspec.json.Decoder(_GrantAnswer)
_refusal_decoder = msgspec.json.Decoder(_RefusalAnswer)


def encode_question(question: KeyQuestion, pop: str) -> bytes:
    """The body of the request. Raises `PublishRefusedError` for a key that no JSON can hold."""
    try:
        return msgspec.json.encode(
            {
                "app": question.app[:FIELD_CHARS_MAX],
                "stream_key": question.stream_key,
                "protocol": question.protocol,
                "peer": question.peer,
                "encoder": question.encoder[:FIELD_CHARS_MAX].encode(errors="replace").decode(),
                "pop": pop,
            }
        )
    except UnicodeEncodeError:  # Half of a surrogate pair. Its text would show the key.
        raise PublishRefusedError("unknown_key", REFUSED_UNKNOWN) from None


def read_answer(status: int, body: bytes, stream_key: str) -> Verdict:
    """What the service said; raises `NoAnswerError` when that is no answer."""
    if status in ANSWERS_REFUSED:
        return KeyRefused(_read_reason(body, stream_key))
    if status != ANSWER_OK:
        also = "; redirects are not followed" if 300 <= status < 400 else ""  # noqa: PLR2004 - RFC 9110 §15.4
        raise NoAnswerError(f"answered with status {status}{also}")
    try:
        answer = _grant_decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        detail = hide(str(error), stream_key)[:DETAIL_CHARS_MAX]
        raise NoAnswerError(f"answered with what is no grant: {detail}") from None
    told = DescriptionChange(title=answer.title, category=answer.category, labels=answer.labels)
    if problem := find_problem(told):
        raise NoAnswerError(f"answered with what is no grant: {hide(problem, stream_key)}")
    return Grant(
        channel=answer.channel,
        priority=PriorityClass[answer.priority.upper()],
        title=answer.title,
        tags=answer.tags,
        ladder=answer.ladder,
        record=answer.record,
        playback=answer.playback,
        expires_at=answer.expires_at,
        category=answer.category,
        labels=answer.labels,
        latency=answer.latency,
    )


def settle_latency(verdict: Verdict, stream_key: str) -> tuple[Verdict, str]:
    """The verdict with a latency class that there is, and what was wrong with it, for the log."""
    if not isinstance(verdict, Grant):
        return verdict, ""
    problem = find_label_problem(verdict.latency)
    if not problem:
        return verdict, ""
    return structs.replace(verdict, latency=DEFAULT), hide(problem, stream_key)


def admit(verdict: Verdict, now_unix: float) -> Grant:
    """The grant; raises `PublishRefusedError` where there is none, or none any more."""
    if isinstance(verdict, KeyRefused):
        raise PublishRefusedError("unknown_key", verdict.reason)
    if verdict.expires_at is not None and now_unix >= verdict.expires_at:
        raise PublishRefusedError(
            "expired_key",
            f"the stream key of channel {verdict.channel!r} expired"
            f" {now_unix - verdict.expires_at:.0f} s ago; ask for a new one",
        )
    return verdict


def no_answer(detail: str) -> PublishRefusedError:
    """The refusal for want of an answer: the encoder may try again, the log has the detail."""
    return PublishRefusedError("auth_unavailable", _UNAVAILABLE, f"key callback: {detail}")


def _read_reason(body: bytes, stream_key: str) -> str:
    """What the encoder is told: the service's own words if they are some that can be shown."""
    try:
        reason = _refusal_decoder.decode(body).reason
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return REFUSED_UNKNOWN
    reason = re.sub(r"\s+", " ", reason).strip()[:REASON_CHARS_MAX]
    if _CONTROL.search(reason) or (stream_key and stream_key in reason):
        return REFUSED_UNKNOWN
    return reason or REFUSED_UNKNOWN


class KeyCache:
    """Answers by key, application and protocol: grants for a while, refusals for a short one.

    At `entries_max` of either kind the oldest goes; so wrong keys never push out right ones.
    """

    def __init__(
        self, secret: bytes, *, entries_max: int, ttl_s: float, negative_ttl_s: float
    ) -> None:
        """`secret`: chance of this process, by which keys are hashed."""
        self._secret = secret
        self._entries_max = entries_max
        self._ttls = {Grant: ttl_s, KeyRefused: negative_ttl_s}
        self._kept: dict[type[Verdict], dict[bytes, tuple[float, Verdict]]] = {
            Grant: {},
            KeyRefused: {},
        }

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def name(self, question: KeyQuestion) -> bytes:
        """What stands for a question: nobody can tell the key from it."""
        digest = hmac.new(self._secret, _DOMAIN, hashlib.sha256)
        for text in (question.app, question.protocol, question.stream_key):
            data = text.encode(errors="surrogatepass")
            digest.update(len(data).to_bytes(4, "big") + data)
        return digest.digest()

    def get(self, name: bytes, now: float) -> Verdict | None:
        """The answer, if there is one that is still good."""
        for kept in self._kept.values():
            if (entry := kept.get(name)) is not None and now < entry[0]:
                return entry[1]
        return None

    def put(self, name: bytes, verdict: Verdict, now: float) -> None:
        """Keep an answer; it replaces the one before, of whichever kind that was."""
        for kept in self._kept.values():
            kept.pop(name, None)
        kept, ttl_s = self._kept[type(verdict)], self._ttls[type(verdict)]
        if ttl_s <= 0:
            return
        while kept and (
            len(kept) >= self._entries_max or kept[next(iter(kept))][0] <= now
        ):  # All of a kind live equally long: the first is the oldest.
            del kept[next(iter(kept))]
        kept[name] = (now + ttl_s, verdict)
