"""Prometheus metrics of the server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from verl_rsim.serving.admission import AdmissionControl
from verl_rsim.serving.events import EpisodeFinished

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
"""Upper bounds of the histograms' buckets, in seconds."""


class Metrics:
    """Holds the server's metrics in a registry of their own, so that several servers can run in one process."""

    def __init__(self, admission: AdmissionControl):
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("rsim_http_requests", "Answered requests", ["route", "status"], registry=registry)
        self.episodes = Counter(
            "rsim_episodes", "Finished episodes, by the reason they ended", ["stop"], registry=registry
        )
        self.strategies = Counter("rsim_strategies", "Chosen strategies", ["strategy"], registry=registry)
        self.tokens = Counter("rsim_tokens", "Tokens of finished episodes", ["role", "kind"], registry=registry)
        self.engine_failures = Counter(
            "rsim_engine_failures", "Requests that failed in a model's engine", registry=registry
        )
        self.disconnects = Counter(
            "rsim_clients_gone", "Clients that disconnected before their answer", registry=registry
        )
        self.first_text_seconds = Histogram(
            "rsim_first_text_seconds", "Seconds from request to first text", buckets=BUCKETS, registry=registry
        )
        self.request_seconds = Histogram(
            "rsim_request_seconds", "Seconds from request to the end of the answer", buckets=BUCKETS, registry=registry
        )
        active = Gauge("rsim_episodes_admitted", "Episodes that play or wait", registry=registry)
        active.set_function(lambda: admission.active)

    def count_episode(self, event: EpisodeFinished) -> None:
        """Counts a finished episode and its tokens."""
        self.episodes.labels(event.stop).inc()
        for role, counts in (("planner", event.planner), ("reasoner", event.reasoner)):
            self.tokens.labels(role, "read").inc(counts.prompt)
            self.tokens.labels(role, "written").inc(counts.completion)

    def render(self) -> bytes:
        """Returns all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
