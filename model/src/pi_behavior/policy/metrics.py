"""Metrics of a running policy server, in the Prometheus text format at /metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pi_behavior.policy.control_loop import Event

_SECONDS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 20)


class ServerMetrics:
    """Counters of one server; a registry of its own, so that several servers fit in one process."""

    def __init__(self) -> None:
        """Start at zero."""
        self._registry = CollectorRegistry()
        self.sessions = Gauge("policy_sessions", "Open connections.", registry=self._registry)
        self.steps = Counter("policy_requests", "Observations answered.", registry=self._registry)
        self.errors = Counter("policy_errors", "Sessions closed by an error.", registry=self._registry)
        self.seconds = Histogram(
            "policy_request_seconds",
            "Seconds from observation to answer.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.network_seconds = Histogram(
            "policy_network_seconds",
            "Seconds of one run of the network.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.batch = Histogram(
            "policy_batch_size",
            "Requests per run of the network.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self._registry,
        )
        self._rules = Counter(
            "policy_rules", "Applications of control-loop rules.", ("task", "rule"), registry=self._registry
        )

    def rule(self, event: Event) -> None:
        """Count an application of a rule."""
        self._rules.labels(str(event.task), event.rule).inc()

    def text(self) -> bytes:
        """All metrics."""
        return generate_latest(self._registry)
