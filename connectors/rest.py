"""REST polls of one venue under one rate-limit governor.

Every answer leaves as a :class:`~connectors.frames.Frame`, so that it is recorded and replayed like what came over a socket.
Nothing that a server or the network does ends :meth:`RestPoller.run`: it is counted, waited for, or given up per request.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

import aiohttp
import msgspec

from connectors.frames import REST_CONNECTION, Frame, RestRequest, wrap_rest_response
from connectors.http_exchange import RestError, exchange
from connectors.outbound import USER_AGENT, Backoff, TokenBucket, count_reason, is_loopback, retry_after_s
from connectors.venue import PeriodicRequest, Venue

__all__ = ["RestError", "RestPolicy", "RestPoller", "RestStatus"]

MAX_QUEUED = 1_024
"""At 600 requests a minute (Hyperliquid's account polls) this is 100 s of work; whatever waits longer is better asked anew."""

MAX_REFUSED = 4_096
"""Refused requests remembered; about 300 bytes each. The oldest is forgotten first."""


class RestPolicy(msgspec.Struct, frozen=True):
    """How a poller treats trouble; all spans in seconds."""

    concurrency: int = 4
    """Requests under way at once; with answers in 0.2 s that is 1,200 a minute, beyond what any venue's weight allows."""
    total_timeout_s: float = 20.0
    connect_timeout_s: float = 5.0
    tries: int = 3
    retry_base_s: float = 1.0
    retry_cap_s: float = 15.0
    limited_base_s: float = 20.0
    """Upper end of the first pause after HTTP 429 without ``Retry-After``; never less than half of it."""
    limited_cap_s: float = 300.0
    banned_pause_s: float = 600.0
    """Pause of everything after HTTP 418, or after :attr:`forbidden_limit` answers 403 in a row; asking earlier extends a ban."""
    forbidden_limit: int = 3
    refused_memory_s: float = 600.0
    """For how long a request that was answered with a final 4xx is not sent again."""

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.tries < 1 or self.forbidden_limit < 1:
            raise ValueError("concurrency, tries and forbidden_limit must be at least 1")


class RestStatus(msgspec.Struct, frozen=True):
    """What a poller has done since the start.

    ``requests`` counts every try, ``errors`` failed tries by HTTP status or kind, ``abandoned`` requests given up after all tries,
    ``dropped`` those that found the queue full, ``refused`` those not sent because the venue had refused them for good.
    ``paused_until_ns`` is the wall time at which a pause ends, ``None`` when there is none.
    """

    venue: str
    requests: int
    answers: int
    errors: dict[str, int]
    weight_used: int
    queue_length: int
    in_flight: int
    dropped: int
    refused: int
    abandoned: int
    paused_until_ns: int | None
    last_answer_ns: int | None


class _Job(msgspec.Struct, eq=False):
    """A request that is queued or under way, and who awaits its answer."""

    request: RestRequest
    waiters: list[asyncio.Future[bytes]] = []


_Key = tuple[str, str, str]


def _key(request: RestRequest) -> _Key:
    return (request.method, request.path, request.body)


class RestPoller:
    """Sends requests to one venue, no faster than it allows.

    Args:
        venue: gives the name, the public base URL and the weight limit.
        deliver: takes the frame of each answer; it must be quick and must not raise.
        seed: of the jitter.
        rest_url: base URL in place of the venue's own.
        weight_per_minute: limit in place of the venue's own, for an own node or a higher tier.
        policy: how to treat trouble.
        clock_ns: wall clock for stamps and for ``Retry-After`` dates.
        now_s: monotonic clock of the governor; it must run with the event loop's timers.
    """

    def __init__(
        self,
        *,
        venue: Venue,
        deliver: Callable[[Frame], None],
        seed: int,
        rest_url: str = "",
        weight_per_minute: int | None = None,
        policy: RestPolicy = RestPolicy(),  # noqa: B008 - frozen
        clock_ns: Callable[[], int] = time.time_ns,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._venue_name = venue.name
        self._url = (rest_url or venue.rest_url).rstrip("/")
        self._deliver = deliver
        self._policy = policy
        self._clock_ns = clock_ns
        self._now_s = now_s
        self._draw = random.Random(seed).random  # noqa: S311 - jitter is no secret
        self._bucket = TokenBucket(weight_per_minute=weight_per_minute or venue.rest_weight_per_minute, now_s=now_s())
        self._limited = Backoff(base_s=policy.limited_base_s, cap_s=policy.limited_cap_s, draw=lambda: (1.0 + self._draw()) / 2.0)
        self._urgent: deque[_Job] = deque()
        self._normal: deque[_Job] = deque()
        self._open: dict[_Key, _Job] = {}
        self._queued_weight = 0
        self._queued = asyncio.Semaphore(0)
        self._gate = asyncio.Lock()
        self._refused_until_s: OrderedDict[_Key, float] = OrderedDict()
        self._periodic: list[PeriodicRequest] = []
        self._periodic_changed = asyncio.Event()
        self._stopped = False
        self._paused_until_s = now_s()
        self._forbidden_in_a_row = 0
        self._requests = self._answers = self._weight_used = self._in_flight = 0
        self._dropped = self._refused = self._abandoned = 0
        self._errors: dict[str, int] = {}
        self._last_answer_ns: int | None = None

    def health(self) -> RestStatus:
        """Return the counters and the present state."""
        pause_s = self._paused_until_s - self._now_s()
        return RestStatus(
            venue=self._venue_name,
            requests=self._requests,
            answers=self._answers,
            errors=dict(self._errors),
            weight_used=self._weight_used,
            queue_length=self._queue_length(),
            in_flight=self._in_flight,
            dropped=self._dropped,
            refused=self._refused,
            abandoned=self._abandoned,
            paused_until_ns=self._clock_ns() + int(pause_s * 1e9) if pause_s > 0.0 else None,
            last_answer_ns=self._last_answer_ns,
        )

    def free_weight(self) -> int:
        """Return the weight that could be sent at once, after all that is queued; 0 during a pause.

        Callers that choose among many requests submit no more than this, so that they choose late.
        """
        now_s = self._now_s()
        if now_s < self._paused_until_s:
            return 0
        return max(int(self._bucket.available(now_s)) - self._queued_weight, 0)

    def submit(self, request: RestRequest, *, urgent: bool = False) -> bool:
        """Queue ``request`` unless the same one is already queued or under way.

        Args:
            request: what to ask.
            urgent: whether it goes before all that are not; a queued request can become urgent.

        Returns:
            Whether an answer is on its way; ``False`` (and a counter) when the queue is full or the venue has refused this very
            request for good within the last minutes.
        """
        return self._enqueue(request, urgent=urgent) is not None

    async def fetch(self, request: RestRequest) -> bytes:
        """Return the answer to ``request``, which is delivered as a frame too. Needs :meth:`run` to be running.

        Raises:
            RestError: there was no usable answer; ``retryable`` says whether asking again later may help.
        """
        job = self._enqueue(request, urgent=True)
        if job is None:
            if _key(request) in self._refused_until_s:
                raise RestError(f"{request.path} was refused before", retryable=False, kind="refused")
            raise RestError("the poller was stopped" if self._stopped else "the queue is full", retryable=True, kind="not_queued")
        waiter: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        job.waiters.append(waiter)
        return await waiter

    def periodic(self, requests: Sequence[PeriodicRequest]) -> None:
        """Repeat ``requests`` from now on, in place of those given before; each is due at once.

        Raises:
            ValueError: an interval is not positive.
        """
        for item in requests:
            if not item.interval_s > 0.0:
                raise ValueError(f"the interval of {item.request.path} must be positive, not {item.interval_s}")
        self._periodic = list(requests)
        self._periodic_changed.set()

    async def run(self) -> None:
        """Send what is queued until cancelled; then whoever awaits an answer gets a :class:`RestError`.

        Raises:
            ExceptionGroup: ``deliver`` raised, which is a mistake of ours. Nothing that comes from outside is raised.
        """
        policy = self._policy
        self._stopped = False
        self._queued = asyncio.Semaphore(self._queue_length())
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=policy.concurrency),
                    timeout=aiohttp.ClientTimeout(total=policy.total_timeout_s, sock_connect=policy.connect_timeout_s),
                    headers={"User-Agent": USER_AGENT, "Accept": "application/json"},
                    cookie_jar=aiohttp.DummyCookieJar(),
                    trust_env=not is_loopback(self._url),
                ) as session,
                asyncio.TaskGroup() as group,
            ):
                group.create_task(self._repeat())
                for _ in range(policy.concurrency):
                    group.create_task(self._work(session))
        finally:
            self._stopped = True
            for job in self._open.values():
                _fail(job, RestError("the poller was stopped", retryable=True, kind="stopped"))
            for table in (self._open, self._urgent, self._normal):
                table.clear()
            self._queued_weight = 0

    def _queue_length(self) -> int:
        return len(self._urgent) + len(self._normal)

    def _enqueue(self, request: RestRequest, *, urgent: bool) -> _Job | None:
        """Return the job that will answer ``request``, or ``None`` when there will be none."""
        key = _key(request)
        job = self._open.get(key)
        if job is not None:
            if urgent and job in self._normal:
                self._normal.remove(job)
                self._urgent.append(job)
            return job
        refused_until_s = self._refused_until_s.get(key)
        if refused_until_s is not None:
            if self._now_s() < refused_until_s:
                self._refused += 1
                return None
            del self._refused_until_s[key]
        if self._stopped or self._queue_length() >= MAX_QUEUED:
            self._dropped += 1
            return None
        job = _Job(request)
        self._open[key] = job
        (self._urgent if urgent else self._normal).append(job)
        self._queued_weight += request.weight
        self._queued.release()
        return job

    async def _repeat(self) -> None:
        """Submit the periodic requests when they are due; one that finds no room waits for its next turn."""
        due_s: list[float] = []
        while True:
            if self._periodic_changed.is_set():
                self._periodic_changed.clear()
                due_s = [self._now_s()] * len(self._periodic)
            now_s = self._now_s()
            for index, item in enumerate(self._periodic):
                if due_s[index] <= now_s:
                    self.submit(item.request)
                    next_s = due_s[index] + item.interval_s
                    # After a standstill the missed turns are not made up for.
                    due_s[index] = next_s if next_s > now_s else now_s + item.interval_s
            try:
                async with asyncio.timeout(min(due_s) - now_s if due_s else None):
                    await self._periodic_changed.wait()
            except TimeoutError:
                continue

    async def _work(self, session: aiohttp.ClientSession) -> None:
        """Answer one job after the other."""
        while True:
            await self._queued.acquire()
            async with self._gate:
                # Which job it is, is decided only when there is weight for it, so that an urgent one can still go first.
                await self._admission(lambda: (self._urgent or self._normal)[0])
                job = (self._urgent or self._normal).popleft()
                self._queued_weight -= job.request.weight
                self._spend(job)
            self._in_flight += 1
            try:
                await self._answer(session, job)
            finally:
                self._in_flight -= 1
                self._open.pop(_key(job.request), None)
                _fail(job, RestError("the poller was stopped", retryable=True, kind="stopped"))

    async def _admission(self, next_job: Callable[[], _Job]) -> None:
        """Wait until the next job may be sent; called by one worker at a time, which keeps the order."""
        while True:
            now_s = self._now_s()
            wait_s = max(self._paused_until_s - now_s, self._bucket.wait_s(next_job().request.weight, now_s))
            if wait_s <= 0.0:
                return
            await asyncio.sleep(wait_s)

    def _spend(self, job: _Job) -> None:
        self._bucket.take(job.request.weight, self._now_s())
        self._weight_used += job.request.weight
        self._requests += 1

    async def _answer(self, session: aiohttp.ClientSession, job: _Job) -> None:
        """Try to get an answer, deliver it, and tell whoever waits. The first try is paid for already."""
        backoff = Backoff(base_s=self._policy.retry_base_s, cap_s=self._policy.retry_cap_s, draw=self._draw)
        tries_left = self._policy.tries
        while True:
            try:
                body = await exchange(session, self._url, job.request)
            except RestError as error:
                count_reason(self._errors, error.kind)
                self._note_limits(error)
                tries_left -= 1
                if not error.retryable:
                    self._remember_refusal(job.request)
                elif tries_left == 0:
                    self._abandoned += 1
                if not error.retryable or tries_left == 0:
                    _fail(job, error)
                    return
            else:
                self._succeed(job, body)
                return
            await asyncio.sleep(backoff.next_delay_s())
            async with self._gate:
                await self._admission(lambda: job)
                self._spend(job)

    def _note_limits(self, error: RestError) -> None:
        """Send nothing for a while when the venue said that too much was asked, or that nothing may be asked."""
        self._forbidden_in_a_row = self._forbidden_in_a_row + 1 if error.status == 403 else 0
        asked_s = retry_after_s(error.retry_after, self._clock_ns())
        if error.status == 429:
            # Every 429 widens the next pause that is ours to choose, until an answer comes through.
            chosen_s = self._limited.next_delay_s()
            self._pause(chosen_s if asked_s is None else asked_s)
        elif error.status == 418:
            self._pause(max(asked_s or 0.0, self._policy.banned_pause_s))
        elif error.status == 503 and asked_s is not None:
            self._pause(asked_s)
        elif self._forbidden_in_a_row >= self._policy.forbidden_limit:
            # 403 as the answer to everything means that the address is barred, not the request.
            self._forbidden_in_a_row = 0
            self._pause(self._policy.banned_pause_s)

    def _pause(self, span_s: float) -> None:
        """Send nothing for ``span_s``; the venue has counted more than we have, so start again from an empty bucket."""
        now_s = self._now_s()
        self._paused_until_s = max(self._paused_until_s, now_s + span_s)
        self._bucket.drain(now_s)

    def _remember_refusal(self, request: RestRequest) -> None:
        self._refused_until_s[_key(request)] = self._now_s() + self._policy.refused_memory_s
        self._refused_until_s.move_to_end(_key(request))
        if len(self._refused_until_s) > MAX_REFUSED:
            self._refused_until_s.popitem(last=False)

    def _succeed(self, job: _Job, body: bytes) -> None:
        received_ns = self._clock_ns() // 100 * 100
        self._answers += 1
        self._last_answer_ns = received_ns
        self._forbidden_in_a_row = 0
        self._limited.reset()
        self._deliver(Frame(self._venue_name, REST_CONNECTION, received_ns, wrap_rest_response(job.request, body)))
        for waiter in job.waiters:
            if not waiter.done():
                waiter.set_result(body)


def _fail(job: _Job, error: RestError) -> None:
    """Tell whoever still waits that there will be no answer."""
    for waiter in job.waiters:
        if not waiter.done():
            waiter.set_exception(error)
