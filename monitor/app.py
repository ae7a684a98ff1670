"""The shell: sockets, clock, files, signals. It moves frames into the core and projections out of it, and decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import msgspec
import structlog

from alerts.delivery import Delivery
from alerts.pipeline import Pipeline
from alerts.sinks import Sink, make_sink
from alerts.sinks.mqtt import MqttSink
from connectors.intake import FrameIntake
from connectors.live import LiveConnection
from connectors.node_files import NodeFillsTail
from connectors.recorder import Recorder, RecorderError
from connectors.rest import RestPoller
from connectors.venue import Venue
from monitor.account_inputs import AccountInputs, RefusalLog
from monitor.account_queries import AccountQueries
from monitor.config import Config
from monitor.engine import Engine
from monitor.evaluate import evaluate
from monitor.ingest import Ingest
from monitor.market_state import encode_state
from monitor.polling import Pollster, fetch_instruments
from monitor.projection import ConnectionHealth, DaemonStatus, Projection
from monitor.rules import RuleBook
from monitor.settings import VenueConfig
from monitor.web.hub import Hub
from monitor.web.server import WebServer
from monitor.wiring import engine_settings, parsers

log = structlog.get_logger("monitor.app")

BATCH_FRAMES = 500
"""Frames applied before other tasks get their turn: about 2 ms of work."""

THREAD_LEGS = 20_000
"""Above this many positions a sweep takes longer than the event loop should wait (some 0.5 ms) and runs in the worker thread."""

SPACING_S = 0.02
"""Least time between the starts of two evaluations. How often a single market is looked at is configured and up to the engine."""

NODE_WEIGHT_PER_MINUTE = 120_000
"""An own node has no limits, but also a life of its own: a thousand account states a second leave it one."""

STATUS_EVERY_S = 1.0
RECORD_AGAIN_S = 30.0
"""After a full disk recording is tried again this often."""

DRAIN_S = 5.0
"""How long notifications may take to leave when the daemon stops."""


def tune_interpreter() -> None:
    """Set the interpreter up for one busy event loop beside one computing thread."""
    # Nearly all that is made is freed by its last reference. The default thresholds make the collector walk through the latest
    # projection for tens of milliseconds several times a second.
    gc.set_threshold(50_000, 20, 100)
    # The computing thread asks for the interpreter after every array operation; with the default of 5 ms it would mostly wait.
    sys.setswitchinterval(0.0005)


class SteadyClock:
    """Wall time at the start plus monotonic time since: when somebody sets the clock, no feed becomes stale or fresh by it.

    Calls return nanoseconds UTC in whole 100 ns, the resolution of recordings.
    """

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def __call__(self) -> int:
        """Return the time now."""
        return (time.monotonic_ns() + self._offset_ns) // 100 * 100


class Daemon:
    """One running monitor.

    Args:
        config: the whole configuration.
        seed: of all jitter.
        on_projection: called with every projection, after it was published.
        must_record: end with an :class:`OSError` when recording fails, because that is what the run is for.
    """

    def __init__(
        self,
        config: Config,
        *,
        seed: int = 0,
        on_projection: Callable[[Projection], None] | None = None,
        must_record: bool = False,
    ) -> None:
        self.config = config
        self._must_record = must_record
        self.engine = Engine(engine_settings(config))
        self.hub = Hub(evaluation_timeout_s=config.http.evaluation_timeout_s, history_markets=config.http.history_markets)
        self.web = WebServer(self.hub, config.http) if config.http.enabled else None
        self.connections: list[LiveConnection] = []
        self.ready = asyncio.Event()
        """Set once the HTTP server listens and every venue has its subscriptions planned."""
        self._seed = seed
        self._on_projection = on_projection
        self._intake = FrameIntake()
        self._venues: dict[str, Venue] = parsers(config)
        self._ingest = Ingest(self.engine, self._venues, on_refused=RefusalLog())
        self._rules = RuleBook(config.rules)
        self._pipeline = Pipeline(config.alerts.repeat_interval_s)
        self._sinks: list[Sink] = [make_sink(sink, config.instance) for sink in config.sinks]
        self._delivery = Delivery(self._sinks, seed)
        self._pollers: list[RestPoller] = []
        self._recorder: Recorder | None = None
        self._recorder_error = ""
        self._record_again_s = 0.0
        self._changed = asyncio.Event()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="evaluate")
        self.now_ns = SteadyClock()
        """The daemon's clock."""
        self._started_ns = self.now_ns()
        self._projections = 0
        self._compute_s = 0.0
        self._state_published_s = 0.0
        self._venues_to_start = len(config.venues)
        self._account_inputs = AccountInputs(
            self.engine, config.account_feeds, intake=self._intake, seed=seed, clock_ns=self.now_ns
        )
        self._node_tails: list[NodeFillsTail] = []
        self.hub.accounts = AccountQueries(self.engine)
        self.hub.clock_ns = self.now_ns

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set, then let notifications leave and close everything.

        Raises:
            OSError: the HTTP address cannot be listened on.
        """
        for venue in self.config.venues:
            for account in venue.seed_accounts:
                self.engine.accounts.pin(venue.name, account)
        if self.web is not None:
            await self.web.start()
            log.info("listening", url=f"http://{self.config.http.host}:{self.web.port}/")
        if not self.config.venues:
            self.ready.set()
        self._open_recorder()
        delivery = asyncio.create_task(self._delivery.run(), name="delivery")
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._apply_frames(), name="apply"),
                    group.create_task(self._project_changes(), name="project"),
                    group.create_task(self._report_status(), name="status"),
                    group.create_task(self._account_inputs.run(), name="account-feeds"),
                    *(group.create_task(self._run_venue(venue), name=f"venue-{venue.name}") for venue in self.config.venues),
                ]
                tasks.append(group.create_task(_end_with(delivery), name="delivery-watch"))
                await stop.wait()
                log.info("stopping")
                for task in tasks:
                    task.cancel()
        finally:
            await self._delivery.stop(DRAIN_S)
            delivery.cancel()
            await asyncio.wait({delivery})
            if self.web is not None:
                await self.web.stop()
            self._close_recorder()
            self._executor.shutdown()

    # ----------------------------------------------------------------------------------------------------- inputs

    async def _run_venue(self, config: VenueConfig) -> None:
        venue, settings = self._venues[config.name], config.settings()
        poller = self._poller(venue, settings.rest_url, config.rest_weight_per_minute)
        node = self._poller(venue, config.node_info_url, NODE_WEIGHT_PER_MINUTE) if config.node_info_url else None
        async with asyncio.TaskGroup() as group:
            group.create_task(poller.run(), name=f"rest-{venue.name}")
            if node is not None:
                group.create_task(node.run(), name=f"node-info-{venue.name}")
            if config.node_directory:
                tail = NodeFillsTail(
                    Path(config.node_directory),
                    self._intake.put,
                    self.now_ns,
                    venue=venue.name,
                    consecutive_blocks=config.node_consecutive_blocks,
                )
                self._node_tails.append(tail)
                group.create_task(tail.run(), name=f"node-fills-{venue.name}")
            known = await fetch_instruments(venue, settings, poller)
            symbols = settings.symbols if known is None else tuple(symbol for symbol in settings.symbols if symbol in known)
            missing = sorted(set(settings.symbols) - set(symbols))
            if missing:
                # Some venues drop the whole socket for one unknown symbol, so these are never asked for.
                log.error("unknown_symbols", venue=venue.name, symbols=missing)
                self.engine.markets.quarantine(venue.name, missing)
            plans = venue.connections(msgspec.structs.replace(settings, symbols=symbols)) if symbols else []
            for number, plan in enumerate(plans):
                connection = LiveConnection(
                    venue=venue, plan=plan, deliver=self._intake.put, seed=self._seed + number, clock_ns=self.now_ns
                )
                self.connections.append(connection)
                group.create_task(connection.run(), name=f"socket-{venue.name}-{plan.name}")
            poller.periodic(venue.periodic(settings))
            group.create_task(Pollster(self.engine, venue, poller, self.now_ns, node=node).run(), name=f"poll-{venue.name}")
            self._venues_to_start -= 1
            if not self._venues_to_start:
                self.ready.set()

    def _poller(self, venue: Venue, rest_url: str, weight_per_minute: int | None) -> RestPoller:
        poller = RestPoller(
            venue=venue,
            deliver=self._intake.put,
            seed=self._seed + len(self._pollers),
            rest_url=rest_url,
            weight_per_minute=weight_per_minute,
            clock_ns=self.now_ns,
        )
        self._pollers.append(poller)
        return poller

    async def _apply_frames(self) -> None:
        while True:
            frames = await self._intake.take(BATCH_FRAMES)
            if self._recorder is None and self._recorder_error and asyncio.get_running_loop().time() >= self._record_again_s:
                self._open_recorder()
            if self._recorder is not None:
                try:
                    for frame in frames:
                        self._recorder.write(frame)
                except RecorderError as error:
                    self._recorder, self._recorder_error = None, str(error)
                    self._record_again_s = asyncio.get_running_loop().time() + RECORD_AGAIN_S
                    log.error("recording_stopped", error=str(error), retry_s=RECORD_AGAIN_S)  # noqa: TRY400 - an operator's matter, not a traceback's
                    if self._must_record:
                        raise OSError(str(error)) from error
            self._ingest.apply_all(frames)
            self._changed.set()

    def _open_recorder(self) -> None:
        if self.config.recording.enabled:
            try:
                self._recorder = Recorder(Path(self.config.recording.directory))
            except RecorderError as error:
                self._recorder_error = str(error)
                self._record_again_s = asyncio.get_running_loop().time() + RECORD_AGAIN_S
                log.error("recording_failed", error=str(error), retry_s=RECORD_AGAIN_S)  # noqa: TRY400
            else:
                self._recorder_error = ""

    def _close_recorder(self) -> None:
        if self._recorder is not None:
            with contextlib.suppress(RecorderError):
                self._recorder.close()

    # ---------------------------------------------------------------------------------------------------- outputs

    async def _project_changes(self) -> None:
        """Project when something is due, and look now and then when nothing arrives."""
        loop = asyncio.get_running_loop()
        interval_s = self.config.projection.interval_ms / 1e3
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._changed.wait()
            self._changed.clear()
            started_s = loop.time()
            now_ns = self.now_ns()
            if self.engine.due(now_ns):
                self._publish(await self._evaluate(now_ns))
                self._compute_s = loop.time() - started_s
            await asyncio.sleep(max(0.0, started_s + SPACING_S - loop.time()))

    async def _evaluate(self, now_ns: int) -> Projection:
        if self.engine.accounts.legs.leg_count <= THREAD_LEGS:
            return self.engine.project(now_ns, paced=True)
        inputs = self.engine.freeze(now_ns, paced=True)
        return self.engine.adopt(await asyncio.get_running_loop().run_in_executor(self._executor, evaluate, inputs))

    def _publish(self, projection: Projection) -> None:
        self._projections += 1
        self.hub.publish(projection)
        changes = self._rules.update(projection)
        firing = self._rules.firing()
        self._delivery.submit(self._pipeline.process(changes, firing, time.monotonic_ns()))
        self.hub.publish_alerts(changes, firing)
        for alert in changes:
            log.info("alert", name=alert.name, resolved=alert.resolved, severity=alert.severity, **alert.labels)
        self._publish_retained(projection)
        if self._on_projection is not None:
            self._on_projection(projection)

    def _publish_retained(self, projection: Projection) -> None:
        """Give brokers the latest state about once a second; more often than that nobody reads a retained message."""
        sinks = [sink for sink in self._sinks if isinstance(sink, MqttSink)]
        now_s = time.monotonic()
        if not sinks or now_s - self._state_published_s < STATUS_EVERY_S:
            return
        self._state_published_s = now_s
        online = {venue.venue: False for venue in projection.venues}
        for market in projection.markets:
            online[market.venue] |= not market.stale
        for sink in sinks:
            for market in projection.markets:
                sink.publish_state(market.venue, market.symbol, encode_state(market))
            for venue, fresh in online.items():
                sink.publish_availability(venue, fresh)

    async def _report_status(self) -> None:
        while True:
            self.hub.publish_status(self.status())
            await asyncio.sleep(STATUS_EVERY_S)

    def status(self) -> DaemonStatus:
        """Describe the process as it is now."""
        now_ns = self.now_ns()
        sinks = self._delivery.status()
        oldest_ns = self._intake.oldest_received_ns
        return DaemonStatus(
            as_of_ns=now_ns,
            started_ns=self._started_ns,
            instance=self.config.instance,
            version=version("liquidation-monitor"),
            simulated=any(venue.simulated for venue in self.config.venues),
            connections=(*self._socket_health(), *self._rest_health(), *self._account_inputs.health(), *self._node_health()),
            intake_frames=len(self._intake),
            intake_dropped=self._intake.dropped,
            projections=self._projections,
            projection_compute_s=self._compute_s,
            lag_s=max(0, now_ns - oldest_ns) / 1e9 if oldest_ns is not None else 0.0,
            alert_queue={sink.name: sink.queue for sink in sinks},
            alert_failures={sink.name: sink.failures for sink in sinks},
            alert_dropped={sink.name: sink.dropped for sink in sinks},
            recording=self._recorder is not None,
            recorder_error=self._recorder_error,
        )

    def _socket_health(self) -> list[ConnectionHealth]:
        return [
            ConnectionHealth(
                venue=health.venue,
                connection=health.connection,
                state=health.state,
                detail=health.detail,
                connects=health.connects,
                disconnects=sum(health.disconnects.values()),
                messages=health.messages,
                last_message_ns=health.last_message_ns,
                silent_channels=health.silent_channels,
            )
            for health in (connection.health() for connection in self.connections)
        ]

    def _rest_health(self) -> list[ConnectionHealth]:
        result = []
        for poller in self._pollers:
            health = poller.health()
            paused = health.paused_until_ns is not None
            result.append(
                ConnectionHealth(
                    venue=health.venue,
                    connection="rest",
                    state="waiting" if paused else "connected" if health.answers else "connecting",
                    detail=f"{health.queue_length} queued, {sum(health.errors.values())} errors, {health.weight_used} weight used",
                    connects=health.requests,
                    disconnects=sum(health.errors.values()),
                    messages=health.answers,
                    last_message_ns=health.last_answer_ns,
                    silent_channels=(),
                )
            )
        return result

    def _node_health(self) -> list[ConnectionHealth]:
        return [
            ConnectionHealth(
                venue=health.venue,
                connection=health.connection,
                state=health.state,
                detail=health.detail,
                connects=1,
                disconnects=sum(health.gaps.values()),
                messages=health.lines,
                last_message_ns=health.last_message_ns,
                silent_channels=(),
            )
            for health in (tail.health() for tail in self._node_tails)
        ]


async def _end_with(task: asyncio.Task[None]) -> None:
    """Fail when ``task`` fails, without cancelling it when this is cancelled."""
    await asyncio.shield(task)
