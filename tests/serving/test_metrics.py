from __future__ import annotations

import re

from biomistral.serving.metrics import Metrics, server_metrics

_LINE = re.compile(r'[a-z_]+(\{([a-z_]+="(\\.|[^"\\])*",?)*\})? -?[0-9.e+-]+|# (HELP|TYPE) .+')


def test_every_line_is_of_prometheus_form() -> None:
    metrics = server_metrics()
    metrics.add("requests_total", path="/v1/models", status="200")
    metrics.observe("request_seconds", 0.2, path='/odd"\\\n')
    text = metrics.text({"jobs_running": (3, "Running.")}, {"generated_tokens_total": 7})
    assert text.endswith("\n")
    for line in text.splitlines():
        assert _LINE.fullmatch(line), line


def test_a_histogram_counts_up_to_each_bound() -> None:
    metrics = Metrics()
    metrics.histogram("wait_seconds", "Waiting.")
    for seconds in (0.01, 0.2, 0.2, 1000):
        metrics.observe("wait_seconds", seconds)
    lines = dict(
        line.rsplit(" ", 1) for line in metrics.text({}, {}).splitlines() if line[0] != "#"
    )
    assert lines['biomistral_wait_seconds_bucket{le="0.01"}'] == "1"  # bounds are inclusive
    assert lines['biomistral_wait_seconds_bucket{le="0.25"}'] == "3"
    assert lines['biomistral_wait_seconds_bucket{le="600.0"}'] == "3"
    assert lines['biomistral_wait_seconds_bucket{le="+Inf"}'] == "4"
    assert lines["biomistral_wait_seconds_count"] == "4"
    assert float(lines["biomistral_wait_seconds_sum"]) == 1000.41


def test_a_counter_is_there_before_it_counts() -> None:
    assert "biomistral_timeouts_total 0" in server_metrics().text({}, {})
