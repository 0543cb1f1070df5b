"""What Prometheus is told of a relay's STUN: requests answered and dropped, and bytes in both directions."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from teale_io.stun_service import StunService


class StunMetrics(Collector):
    """The counters of a StunService, taken at the moment of the question."""

    def __init__(self, service: StunService) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        service = self._service
        counters = (
            ("requests_answered", "Binding requests answered.", service.answered),
            ("not_stun", "Datagrams that were no Binding requests.", service.not_stun),
            ("received_bytes", "Bytes of all datagrams that came in.", service.received_bytes),
            ("sent_bytes", "Bytes of the answers.", service.sent_bytes),
        )
        for name, text, total in counters:
            yield CounterMetricFamily(f"teale_stun_{name}", text, total)
        refused = CounterMetricFamily(
            "teale_stun_requests_refused", "Requests dropped, by the limit they met.", labels=["limit"]
        )
        for refusal, count in service.refused.items():
            refused.add_metric([refusal.value], count)
        yield refused
        yield GaugeMetricFamily("teale_stun_addresses", "Addresses with an account.", service.addresses)
