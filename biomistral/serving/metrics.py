"""Numbers of a running server in the text form of Prometheus (version 0.0.4). Knows no HTTP.

Labels are a few known words; nothing that a client sends becomes one.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_PREFIX = "biomistral_"

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counters and histograms of one server; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, Counter[Labels]] = {}
        self._histograms: dict[str, dict[Labels, _Histogram]] = {}
        self._help: dict[str, str] = {}

    def counter(self, name: str, text: str) -> None:
        """Declare a counter, which is then there from the start."""
        self._counters[name] = Counter()
        self._help[name] = text

    def histogram(self, name: str, text: str) -> None:
        """Declare a histogram of seconds."""
        self._histograms[name] = {}
        self._help[name] = text

    def add(self, name: str, value: float = 1, **labels: str) -> None:
        """Count."""
        with self._lock:
            self._counters[name][tuple(sorted(labels.items()))] += value  # type: ignore[assignment]

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Put a duration into a histogram."""
        key = tuple(sorted(labels.items()))
        with self._lock:
            self._histograms[name].setdefault(key, _Histogram()).add(seconds)

    def text(self, gauges: Mapping[str, tuple[float, str]], counts: Mapping[str, float]) -> str:
        """Everything, with ``gauges`` (value and meaning) and ``counts`` that others keep."""
        lines: list[str] = []
        with self._lock:
            for name, counter in self._counters.items():
                lines += self._head(name, "counter")
                lines += [
                    _line(name, labels, value) for labels, value in sorted(counter.items())
                ] or [_line(name, (), 0)]
            for name, histograms in self._histograms.items():
                lines += self._head(name, "histogram")
                for labels, histogram in sorted(histograms.items()):
                    lines += histogram.lines(name, labels)
        for name, count in counts.items():
            lines += [f"# TYPE {_PREFIX}{name} counter", _line(name, (), count)]
        for name, (value, text) in gauges.items():
            lines += [f"# HELP {_PREFIX}{name} {text}", f"# TYPE {_PREFIX}{name} gauge"]
            lines.append(_line(name, (), value))
        return "\n".join(lines) + "\n"

    def _head(self, name: str, kind: str) -> list[str]:
        return [f"# HELP {_PREFIX}{name} {self._help[name]}", f"# TYPE {_PREFIX}{name} {kind}"]


class _Histogram:
    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: Labels) -> list[str]:
        lines, total = [], 0
        for bound, count in zip([*map(repr, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            lines.append(_line(f"{name}_bucket", (*labels, ("le", bound)), total))
        return [
            *lines,
            _line(f"{name}_sum", labels, self._sum),
            _line(f"{name}_count", labels, total),
        ]


def _line(name: str, labels: Labels, value: float) -> str:
    escaped = (
        '{}="{}"'.format(key, text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
        for key, text in labels
    )
    inside = ",".join(escaped)
    shown = f"{value:d}" if isinstance(value, int) else repr(float(value))
    return f"{_PREFIX}{name}{'{' + inside + '}' if inside else ''} {shown}"


def server_metrics() -> Metrics:
    """The counters that a server keeps itself; those of the engine are asked for when needed."""
    metrics = Metrics()
    metrics.counter("requests_total", "Requests by address and status (499: the client left).")
    metrics.counter("timeouts_total", "Requests that were not done in time.")
    metrics.histogram("request_seconds", "From the head of a request to the end of its answer.")
    metrics.histogram(
        "first_token_seconds", "From the request to the first token, waiting included."
    )
    return metrics
