"""One reconnecting websocket loop for every venue: connect, subscribe, stamp, watch, back off.

What arrives leaves as :class:`~connectors.frames.Frame`; a connection that was open and is no more leaves one frame without
payload. All spans are measured on the event loop's monotonic clock; the wall clock is read only to stamp what arrived.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

import msgspec

from connectors.events import SubscriptionNotice
from connectors.frames import Frame
from connectors.link import Link, LinkClosedError, LinkRefusedError, OpenLink, ReconnectPolicy, open_websocket
from connectors.outbound import Backoff, count_reason, retry_after_s
from connectors.subscriptions import ANSWER_S, Batch, Subscriptions
from connectors.venue import ConnectionPlan, FeedError, Venue
from connectors.watchdog import ChannelWatchdog, Silence

__all__ = ["ConnectionStatus", "LiveConnection", "ReconnectPolicy"]

MAX_PATIENCE = 512
"""Factor up to which reconnects for a channel that stays dead are spaced out: 3 periods of 10 s become four hours. Each costs all
other channels, and with them every account whose fills were missed."""

State = Literal["waiting", "connecting", "connected", "degraded", "failed"]


class ConnectionStatus(msgspec.Struct, frozen=True):
    """What a connection is doing and has done since the start.

    ``disconnects`` counts lost connections by reason, ``failures`` attempts that never opened. ``last_message_ns`` is the stamp of
    the last message, ``None`` before the first.
    """

    venue: str
    connection: str
    state: State
    detail: str
    attempts: int
    connects: int
    failures: dict[str, int]
    disconnects: dict[str, int]
    resubscribes: int
    messages: int
    bytes: int
    last_message_ns: int | None
    silent_channels: tuple[str, ...]


class LiveConnection:
    """Keeps one planned connection alive for as long as :meth:`run` runs.

    Args:
        venue: names the channel of each message.
        plan: where to connect, what to send, what to expect.
        deliver: takes each frame; it must be quick and must not raise.
        seed: of the jitter, so that connections of one process do not move in step.
        policy: how stubborn and how patient to be.
        clock_ns: wall clock for the stamps.
        open_link: opens the transport; replaceable, because in a burst the receive side is the limit.
    """

    def __init__(
        self,
        *,
        venue: Venue,
        plan: ConnectionPlan,
        deliver: Callable[[Frame], None],
        seed: int,
        policy: ReconnectPolicy = ReconnectPolicy(),  # noqa: B008 - frozen
        clock_ns: Callable[[], int] = time.time_ns,
        open_link: OpenLink = open_websocket,
    ) -> None:
        self._venue = venue
        self._plan = plan
        self._deliver = deliver
        self._policy = policy
        self._clock_ns = clock_ns
        self._open_link = open_link
        self._subscriptions = Subscriptions(plan)
        draw = random.Random(seed).random  # noqa: S311 - jitter is no secret
        self._backoff = Backoff(base_s=policy.base_delay_s, cap_s=policy.max_delay_s, draw=draw)
        self._attempted_s: deque[float] = deque(maxlen=policy.attempts_per_minute)
        self._patience = 1
        self._state: State = "waiting"
        self._detail = "not started"
        self._attempts = self._connects = self._resubscribes = self._messages = self._bytes = 0
        self._failures: dict[str, int] = {}
        self._disconnects: dict[str, int] = {}
        self._last_message_ns: int | None = None
        self._silent_channels: tuple[str, ...] = ()
        self._reset_session(0.0)

    def _reset_session(self, now_s: float) -> None:
        """Forget what belonged to the connection before."""
        self._subscriptions.begin(now_s)
        confirm_s = self._policy.first_message_s if self._subscriptions.addressable else None
        self._watchdog = ChannelWatchdog(self._subscriptions.expected, now_s, confirm_s=confirm_s)
        self._opened_s = now_s
        self._sent_s = now_s
        self._heard_s: float | None = None
        self._delivers_since_s: float | None = None
        self._whole_since_s: float | None = None
        self._silent_channels = ()

    def health(self) -> ConnectionStatus:
        """Return the present state and the counters."""
        return ConnectionStatus(
            venue=self._venue.name,
            connection=self._plan.name,
            state=self._state,
            detail=self._detail,
            attempts=self._attempts,
            connects=self._connects,
            failures=dict(self._failures),
            disconnects=dict(self._disconnects),
            resubscribes=self._resubscribes,
            messages=self._messages,
            bytes=self._bytes,
            last_message_ns=self._last_message_ns,
            silent_channels=self._silent_channels,
        )

    async def run(self) -> None:
        """Connect, and connect again, until cancelled.

        Raises:
            Exception: whatever ``deliver`` or ``Venue.channel_key`` raises, because that is a mistake of ours.
        """
        while True:
            await asyncio.sleep(self._attempt_wait_s())
            self._enter("connecting", self._detail)
            self._attempts += 1
            self._attempted_s.append(asyncio.get_running_loop().time())
            try:
                async with self._open_link(self._plan, self._policy) as link:
                    await self._hold(link)
            except LinkRefusedError as refusal:
                delay_s = self._refused(refusal)
            else:
                delay_s = self._backoff.next_delay_s()
            await asyncio.sleep(delay_s)

    def _attempt_wait_s(self) -> float:
        """Return how long the next attempt has to wait for the limit of attempts per minute."""
        if len(self._attempted_s) < self._policy.attempts_per_minute:
            return 0.0
        return max(self._attempted_s[0] + 60.0 - asyncio.get_running_loop().time(), 0.0)

    def _refused(self, refusal: LinkRefusedError) -> float:
        """Note an attempt that failed and return how many seconds to wait."""
        count_reason(self._failures, refusal.reason)
        delay_s = self._backoff.next_delay_s()
        if refusal.fatal:
            self._enter("failed", str(refusal))
            return self._policy.failed_delay_s
        # The jitter is added to what the venue asks for, so that several connections do not return in the same instant.
        delay_s += retry_after_s(refusal.retry_after, self._clock_ns()) or 0.0
        if refusal.status == 429:
            delay_s = max(delay_s, self._policy.rate_limited_delay_s)
        elif refusal.status == 418:
            delay_s = max(delay_s, self._policy.banned_delay_s)
        self._enter("waiting", f"{refusal}; next attempt in {delay_s:.1f} s")
        return delay_s

    def _enter(self, state: State, detail: str) -> None:
        self._state = state
        self._detail = detail

    async def _hold(self, link: Link) -> None:
        """Use an open connection until it is lost, and report the loss with one gap."""
        self._reset_session(asyncio.get_running_loop().time())
        self._connects += 1
        self._enter("connected", "")
        try:
            ending = await self._first_ending(link)
        except asyncio.CancelledError:
            self._deliver_gap()
            raise
        # The gap comes before the closing handshake, which a dead peer would keep waiting.
        self._deliver_gap()
        count_reason(self._disconnects, ending.reason)
        if ending.reason == "closed_1006":
            self._subscriptions.lost(asyncio.get_running_loop().time())
        if ending.reason == "partly_silent":
            self._patience = min(self._patience * 2, MAX_PATIENCE)
        self._silent_channels = ()
        self._enter("waiting", str(ending))

    def _deliver_gap(self) -> None:
        self._deliver(Frame(self._venue.name, self._plan.name, self._clock_ns() // 100 * 100, None))

    async def _first_ending(self, link: Link) -> LinkClosedError:
        """Run all that serves an open connection and return what ended it first."""
        duties = [self._receive(link), self._talk(link), self._watch(link)]
        if self._policy.ping_interval_s is not None:
            duties.append(self._ping(link, self._policy.ping_interval_s))
        tasks = [asyncio.create_task(duty) for duty in duties]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        endings: list[LinkClosedError] = []
        for result in results:
            if isinstance(result, LinkClosedError):
                endings.append(result)
            elif result is not None and not isinstance(result, asyncio.CancelledError):
                raise result
        return endings[0]

    async def _receive(self, link: Link) -> None:
        """Stamp and deliver every message; ends by :class:`LinkClosedError` only."""
        venue, name, channel_key = self._venue.name, self._plan.name, self._venue.channel_key
        clock_ns, now_s, saw, deliver = self._clock_ns, asyncio.get_running_loop().time, self._watchdog.saw, self._deliver
        answered = self._subscriptions.answered
        while True:
            payload = await link.receive()
            # Recordings hold seven fractional digits of a second; what was live and what is replayed must agree.
            received_ns = clock_ns() // 100 * 100
            frame = Frame(venue, name, received_ns, payload)
            deliver(frame)
            self._messages += 1
            self._bytes += len(payload)
            self._last_message_ns = received_ns
            self._heard_s = heard_s = now_s()
            key = channel_key(payload)
            if key is None:
                self._note_answers(frame, heard_s)
            else:
                saw(key, heard_s)
                answered(key)

    def _note_answers(self, frame: Frame, now_s: float) -> None:
        """Look into a message that is no data for what the venue says of subscriptions; the consumer judges it for itself."""
        try:
            events = self._venue.parse(frame)
        except FeedError:
            return
        for event in events:
            if isinstance(event, SubscriptionNotice):
                self._subscriptions.answered(event.channel)
                if event.accepted:
                    self._watchdog.confirm(event.channel)
                else:
                    self._watchdog.doubt(event.channel, now_s)

    async def _send(self, link: Link, payload: bytes) -> None:
        await link.send(payload)
        self._sent_s = asyncio.get_running_loop().time()

    async def _talk(self, link: Link) -> None:
        """Subscribe, then send the heartbeat whenever nothing was sent for its interval."""
        for batch in self._subscriptions.batches():
            for message in batch.messages:
                await self._send(link, message)
            if self._subscriptions.step_by_step:
                await self._outlive(batch)
        heartbeat = self._plan.heartbeat
        loop = asyncio.get_running_loop()
        while True:
            if heartbeat is None:
                await loop.create_future()  # until cancelled
                continue
            idle_s = loop.time() - self._sent_s
            if idle_s >= heartbeat.interval_s:
                await self._send(link, heartbeat.payload)
            else:
                # The rest of a rounded span can be too small for any clock to see it pass.
                await asyncio.sleep(max(heartbeat.interval_s - idle_s, 0.001))

    async def _outlive(self, batch: Batch) -> None:
        """Wait for the answers to a batch; those that do not come in time have not cost the connection either."""
        loop = asyncio.get_running_loop()
        sent_s = loop.time()
        while not self._subscriptions.is_answered(batch) and loop.time() - sent_s < ANSWER_S:  # noqa: ASYNC110 - rare and short
            await asyncio.sleep(ANSWER_S / 50.0)
        for key in batch.keys:
            self._subscriptions.answered(key)
        # What was not asked for yet is not silent.
        self._watchdog.postpone(loop.time() - sent_s)

    async def _ping(self, link: Link, interval_s: float) -> None:
        """Notice a peer that is gone without a word."""
        loop = asyncio.get_running_loop()
        timeout_s = self._policy.ping_timeout_s
        while True:
            await asyncio.sleep(interval_s)
            waiting_since_s = loop.time()
            pong = asyncio.create_task(link.ping())
            try:
                while not (await asyncio.wait({pong}, timeout=timeout_s))[0]:
                    # A pong can queue behind a burst; whoever still sends data is not gone.
                    if self._heard_s is None or self._heard_s < waiting_since_s:
                        raise LinkClosedError("ping_timeout", f"no answer to a ping for {timeout_s:g} s")
                    waiting_since_s = loop.time()
                pong.result()
            finally:
                pong.cancel()

    async def _watch(self, link: Link) -> None:
        """Compare what arrives with what the plan expects."""
        loop = asyncio.get_running_loop()
        tick_s = min(self._watchdog.tick_s(), self._policy.first_message_s / 4.0)
        while True:
            due_s = loop.time() + tick_s
            await asyncio.sleep(tick_s)
            now_s = loop.time()
            if now_s - due_s > tick_s:
                # This process stood still: what it could not read in that time is not missing.
                self._watchdog.postpone(now_s - due_s)
                self._opened_s += now_s - due_s
            if link.is_closing():
                # The peer may keep the transport open for ever; this ends it, and the receiver then learns the reason.
                await link.close()
                continue
            owed = bool(self._plan.subscribe) or self._watchdog.deadlines > 0
            if owed and self._heard_s is None and now_s - self._opened_s > self._policy.first_message_s:
                raise LinkClosedError("no_first_message", f"nothing arrived for {self._policy.first_message_s:g} s")
            silence = self._watchdog.check(now_s)
            await self._judge(link, silence)
            self._note_health(silence, now_s, owed=owed)

    async def _judge(self, link: Link, silence: Silence) -> None:
        """Act on silent channels: ask again for some, reconnect for all."""
        self._silent_channels = (*silence.silent, *self._subscriptions.left_out)
        if silence.all_silent:
            raise LinkClosedError("silent", f"no data on any of {len(silence.silent)} channels within their deadlines")
        if not self._silent_channels:
            self._enter("connected", f"{silence.unheard} channels have not sent anything yet" if silence.unheard else "")
            return
        # Texts are bounded; the whole list is in silent_channels.
        self._enter("degraded", f"{len(self._silent_channels)} channels silent: {', '.join(self._silent_channels[:8])}")
        if silence.periods >= self._policy.silent_periods * self._patience:
            raise LinkClosedError("partly_silent", self._detail)
        for key in silence.resend:
            message = self._subscriptions.message_of(key)
            if message is not None:
                await self._send(link, message)
                self._resubscribes += 1

    def _note_health(self, silence: Silence, now_s: float, *, owed: bool) -> None:
        """Forget former failures once the connection has been of use for long enough.

        The backoff needs a connection that delivers; one dead channel beside live ones does not make the next reconnect slow.
        The patience with dead channels needs all of them back.
        """
        delivers = self._heard_s is not None or not owed
        if self._watchdog.deadlines:
            delivers = delivers and silence.unheard < self._watchdog.deadlines
        whole = delivers and not silence.silent and silence.unheard == 0
        self._delivers_since_s = (self._delivers_since_s or now_s) if delivers else None
        self._whole_since_s = (self._whole_since_s or now_s) if whole else None
        if self._delivers_since_s is not None and now_s - self._delivers_since_s >= self._policy.healthy_after_s:
            self._backoff.reset()
        if self._whole_since_s is not None and now_s - self._whole_since_s >= self._policy.healthy_after_s:
            self._patience = 1
