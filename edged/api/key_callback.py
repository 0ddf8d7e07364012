"""The shell around `edged.policy.key_callback`: asks the service, shares and keeps its answers.

A call has a task of its own, so that whoever asked first can leave without taking the answer from
the others; when nobody waits for it any more it ends. At most `concurrency_max` calls are under
way, `per_address_max` of them for publishers of one place; more wait, within the same deadline.
"""

import contextlib
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Protocol

import structlog
import trio

from edged.api.outbound import Caller, CallFailedError
from edged.errors import PublishRefusedError
from edged.media.place import place_of
from edged.media.stream import Grant
from edged.policy.key_callback import (
    KeyCache,
    KeyQuestion,
    NoAnswerError,
    Verdict,
    admit,
    encode_question,
    no_answer,
    read_answer,
    settle_latency,
)
from edged.policy.outbound import hide, place_of_url, sign
from edged.policy.stream_keys import KEY_CHARS_MAX, REFUSED_UNKNOWN, KeyCallbackConfig
from edged.runtime.metrics import Metrics, MetricSpec, Sample

CACHE_SECRET_BYTES = 32

logger = structlog.get_logger("edged.keys")


SPECS = (
    MetricSpec(
        name="edged_keys_callback_calls_total",
        help="Questions put to the service of stream_keys.callback.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_keys_callback_failed_total",
        help="Questions that got no answer, so that a publisher was refused.",
        labels=("role",),
    ),
    MetricSpec(
        name="edged_keys_callback_cached_total",
        help="Questions answered from the cache.",
        labels=("role",),
    ),
)


class AskKey(Protocol):
    """How the door asks; `KeyCallback.ask` is one."""

    async def __call__(self, question: KeyQuestion, check: Callable[[], None]) -> Grant:
        """The grant; raises `PublishRefusedError`.

        `check` is called just before the service is: what it raises is raised here instead.
        """


class _Call:
    """One question under way, and those who wait for its answer."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        self.waiting = 0
        self.verdict: Verdict | PublishRefusedError = no_answer("it was given up")


class _Place:
    """Where publishers come from, while some of them wait."""

    def __init__(self, calls_max: int) -> None:
        self.limiter = trio.CapacityLimiter(calls_max)
        self.users = 0


class KeyCallback:
    """The keys that another service knows. One per PoP."""

    def __init__(
        self,
        config: KeyCallbackConfig,
        pop: str,
        *,
        unix_now: Callable[[], float] = time.time,
    ) -> None:
        self.calls_total = 0
        self.failed_total = 0  # Calls without an answer, and waits in vain for one.
        self.cached_total = 0  # Questions answered from the cache.
        self._config, self._pop, self._unix_now = config, pop, unix_now
        self._cache = KeyCache(
            secrets.token_bytes(CACHE_SECRET_BYTES),
            entries_max=config.cache_entries_max,
            ttl_s=config.cache_ttl_s,
            negative_ttl_s=config.negative_ttl_s,
        )
        self._calls: dict[bytes, _Call] = {}
        self._limiter = trio.CapacityLimiter(config.concurrency_max)
        self._places: dict[str, _Place] = {}
        self._nursery: trio.Nursery | None = None
        self._caller: Caller | None = None

    def register(self, metrics: Metrics, *, role: str) -> None:
        """Have its counters read at each scrape."""

        def read() -> Iterable[Sample]:
            counts = (self.calls_total, self.failed_total, self.cached_total)
            for spec, count in zip(SPECS, counts, strict=True):
                yield Sample(spec.name, count, {"role": role})

        metrics.register(SPECS, read)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the calls until cancelled; raises `ConfigError` when the CA cannot be used."""
        config = self._config
        self._caller = Caller(config.url, ca=config.ca)
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            logger.info("key callback", url=place_of_url(config.url), signed=bool(config.secret))
            await trio.sleep_forever()

    async def ask(self, question: KeyQuestion, check: Callable[[], None]) -> Grant:
        """The grant; raises `PublishRefusedError` with the code and reason.

        The answer to one question is the answer to all with the same key, application and protocol
        that come meanwhile, and to later ones until it is too old.
        """
        if not question.stream_key or len(question.stream_key) > KEY_CHARS_MAX:
            raise PublishRefusedError("unknown_key", REFUSED_UNKNOWN)
        name = self._cache.name(question)
        verdict = self._cache.get(name, trio.current_time())
        if verdict is not None:
            self.cached_total += 1
            return admit(verdict, self._unix_now())
        call = self._calls.get(name)
        if call is None:
            call = self._begin(name, question, check)
        call.waiting += 1
        try:
            await call.done.wait()
        finally:
            call.waiting -= 1
            if not call.waiting and not call.done.is_set():
                call.scope.cancel()
                self._calls.pop(name, None)
        if isinstance(call.verdict, PublishRefusedError):
            raise _copy(call.verdict)
        return admit(call.verdict, self._unix_now())

    def _begin(self, name: bytes, question: KeyQuestion, check: Callable[[], None]) -> _Call:
        if self._nursery is None or self._nursery.cancel_scope.cancel_called:
            raise no_answer("it is not running")
        body = encode_question(question, self._pop)
        call = self._calls[name] = _Call()
        self._nursery.start_soon(self._run_call, name, call, question, body, check)
        return call

    async def _run_call(
        self,
        name: bytes,
        call: _Call,
        question: KeyQuestion,
        body: bytes,
        check: Callable[[], None],
    ) -> None:
        try:
            with call.scope:
                call.verdict = await self._wait_verdict(question, body, check)
                self._cache.put(name, call.verdict, trio.current_time())
        except PublishRefusedError as error:
            call.verdict = error
        except (CallFailedError, NoAnswerError) as error:
            self.failed_total += 1
            call.verdict = no_answer(hide(str(error), question.stream_key))
        except Exception:  # A bug ends this call, never the PoP; and no log shows a key.
            self.failed_total += 1
            call.verdict = no_answer("it failed inside")
            logger.error(  # noqa: TRY400 - with the traceback, the key taken out
                "key callback failed",
                exception=hide(traceback.format_exc(), question.stream_key),
            )
        finally:
            if self._calls.get(name) is call:
                del self._calls[name]
            call.done.set()

    async def _wait_verdict(
        self, question: KeyQuestion, body: bytes, check: Callable[[], None]
    ) -> Verdict:
        """Wait for a slot and ask, all within `timeout_s`."""
        timeout_s = self._config.timeout_s
        asked = False
        try:
            with trio.fail_after(timeout_s):
                async with self._slot(place_of(question.peer)):
                    check()
                    self.calls_total += 1
                    asked = True
                    return await self._post(question, body)
        except trio.TooSlowError:
            if asked:
                raise NoAnswerError(f"no whole answer within {timeout_s:g} s") from None
            under_way = self._limiter.borrowed_tokens
            raise NoAnswerError(
                f"no slot within {timeout_s:g} s, with {under_way} calls under way"
            ) from None

    async def _post(self, question: KeyQuestion, body: bytes) -> Verdict:
        assert self._caller is not None, "calls live in the nursery inside"
        secret = self._config.secret
        fields = sign(secret, int(self._unix_now()), body) if secret else {}
        answer = await self._caller.post(
            body,
            fields,
            timeout_s=self._config.timeout_s,
            bytes_max=self._config.response_bytes_max,
        )
        verdict = read_answer(answer.status, answer.body, question.stream_key)
        verdict, problem = settle_latency(verdict, question.stream_key)
        if problem and isinstance(verdict, Grant):
            logger.warning(
                "key callback names an unknown latency class",
                channel=verdict.channel,
                latency=problem,
                taken=verdict.latency,
            )
        return verdict

    @contextlib.asynccontextmanager
    async def _slot(self, name: str) -> AsyncIterator[None]:
        """A slot of this address, and then one of all."""
        place = self._places.setdefault(name, _Place(self._config.per_address_max))
        place.users += 1
        try:
            async with place.limiter, self._limiter:
                yield
        finally:
            place.users -= 1
            if not place.users:
                del self._places[name]


def _copy(error: PublishRefusedError) -> PublishRefusedError:
    """Each waiter raises its own: one exception raised in several tasks mixes their tracebacks."""
    return PublishRefusedError(
        error.code, error.reason, error.detail, retry_after_s=error.retry_after_s
    )
