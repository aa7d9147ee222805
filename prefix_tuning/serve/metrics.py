"""Counters in the text format of Prometheus."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds."""


class Metrics:
    """How many requests were answered, and how long that took."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: Counter[tuple[str, int]] = Counter()
        self._seconds: list[int] = [0] * len(_BUCKETS)
        self._sum = 0.0
        self._count = 0

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one answer; ``seconds`` until it was complete."""
        with self._lock:
            self._answers[route, status] += 1
            self._sum += seconds
            self._count += 1
            for i, bound in enumerate(_BUCKETS):
                self._seconds[i] += seconds <= bound

    def render(self, gauges: Mapping[str, float], counters: Mapping[str, float]) -> str:
        """The page, with the values of others beside these."""
        with self._lock:
            lines = ["# TYPE prefix_tuning_requests_total counter"]
            for (route, status), count in sorted(self._answers.items()):
                labels = f'route="{route}",code="{status}"'
                lines.append(f"prefix_tuning_requests_total{{{labels}}} {count}")
            lines.append("# TYPE prefix_tuning_request_seconds histogram")
            for bound, count in zip(_BUCKETS, self._seconds, strict=True):
                lines.append(f'prefix_tuning_request_seconds_bucket{{le="{bound}"}} {count}')
            lines.append(f'prefix_tuning_request_seconds_bucket{{le="+Inf"}} {self._count}')
            lines.append(f"prefix_tuning_request_seconds_sum {self._sum:.6f}")
            lines.append(f"prefix_tuning_request_seconds_count {self._count}")
        for kind, values in (("gauge", gauges), ("counter", counters)):
            for name, value in values.items():
                lines += [f"# TYPE prefix_tuning_{name} {kind}", f"prefix_tuning_{name} {value}"]
        return "\n".join(lines) + "\n"
