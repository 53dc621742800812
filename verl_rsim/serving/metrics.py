"""What the server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from verl_rsim.serving.admission import Gate
from verl_rsim.serving.events import EpisodeFinished

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)


class Metrics:
    """The server's counters, in a registry of their own."""

    def __init__(self, gate: Gate):
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("rsim_http_requests", "Answered requests", ["route", "status"], registry=registry)
        self.episodes = Counter(
            "rsim_episodes", "EpisodeFinished episodes, by why they ended", ["stop"], registry=registry
        )
        self.strategies = Counter("rsim_strategies", "Chosen strategies", ["strategy"], registry=registry)
        self.tokens = Counter("rsim_tokens", "Tokens of finished episodes", ["role", "kind"], registry=registry)
        self.failures = Counter("rsim_engine_failures", "Requests that a model's engine failed", registry=registry)
        self.gone = Counter("rsim_clients_gone", "Clients that left before their answer", registry=registry)
        self.first = Histogram(
            "rsim_first_text_seconds", "From request to first text", buckets=SECONDS, registry=registry
        )
        self.whole = Histogram(
            "rsim_request_seconds", "From request to the end of the answer", buckets=SECONDS, registry=registry
        )
        Gauge("rsim_episodes_admitted", "Playing or waiting", registry=registry).set_function(lambda: gate.admitted)

    def finished(self, event: EpisodeFinished) -> None:
        """Count an episode."""
        self.episodes.labels(event.stop).inc()
        for role, counts in (("planner", event.planner), ("reasoner", event.reasoner)):
            self.tokens.labels(role, "read").inc(counts.read)
            self.tokens.labels(role, "written").inc(counts.written)

    def page(self) -> bytes:
        """All numbers, in Prometheus' text format."""
        return generate_latest(self.registry)
