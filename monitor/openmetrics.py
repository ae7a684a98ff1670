"""The metrics of a replay as OpenMetrics text with recorded times, for ``promtool tsdb create-blocks-from openmetrics``."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Sample

from monitor.metrics import ProjectionCollector, Reading
from monitor.projection import Projection

SAMPLE_EVERY_NS = 60_000_000_000
SAMPLES_MAX = 5_000_000
"""About 1 GB of memory: two weeks of minutes for two markets of 100 series, or a day for 35."""


class OpenMetricsLog(Collector):
    """Collects the metrics of a projection once a minute of recorded time."""

    def __init__(self) -> None:
        self.dropped = 0
        """Samples beyond the bound."""
        self._next_ns: int | None = None
        self._count = 0
        self._families: dict[str, Metric] = {}
        self._samples: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[Sample]]] = {}

    def add(self, projection: Projection) -> None:
        """Take the metrics of ``projection`` if a minute has passed since the last ones."""
        if self._next_ns is not None and projection.as_of_ns < self._next_ns:
            return
        self._next_ns = projection.as_of_ns + SAMPLE_EVERY_NS
        reading = Reading(projection=projection)
        for family in ProjectionCollector(lambda: reading, timestamp_s=projection.as_of_ns / 1e9).collect():
            self._families.setdefault(family.name, family)
            series = self._samples.setdefault(family.name, {})
            for sample in family.samples:
                if self._count >= SAMPLES_MAX:
                    self.dropped += 1
                    continue
                self._count += 1
                series.setdefault((sample.name, tuple(sample.labels.items())), []).append(sample)

    def collect(self) -> Iterator[Metric]:
        """Yield each family with the samples of each series together, as the format demands."""
        for name, family in self._families.items():
            family.samples = [sample for samples in self._samples[name].values() for sample in samples]
            yield family

    def render(self) -> bytes:
        """Return the text, which ends with ``# EOF``."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
        return text

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering does not collect."""
        return []
