"""The figures of `MeterBook`, as metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from supervisor.gateway.observing.meters import Histogram, MeterBook, ModelMeters, Used, tokens_by_kind

T = TypeVar("T")


def usage_metrics(book: MeterBook) -> Iterator[Metric]:
    """Every metric of what was settled, by model and by project."""
    yield from _of_models(book.models)
    yield from _of_projects(book.projects)
    refusals = CounterMetricFamily(
        "llamavisor_project_refusals",
        "Requests refused at a limit or a budget, by project.",
        labels=["project", "code"],
    )
    for project, codes in book.refusals.items():
        for code, count in codes.items():
            refusals.add_metric([project, code], count)
    yield refusals


def _of_models(models: Mapping[str, ModelMeters]) -> Iterator[Metric]:
    used = {name: meters.used for name, meters in models.items()}
    requests = CounterMetricFamily(
        "llamavisor_model_requests", "Settled requests by model.", labels=["model", "outcome"]
    )
    tokens = CounterMetricFamily("llamavisor_model_tokens", "Tokens by model.", labels=["model", "kind"])
    cost = CounterMetricFamily("llamavisor_model_cost_micros", "Cost by model, in micro-units.", labels=["model"])
    yield from _filled(requests, tokens, cost, used)
    duration = HistogramMetricFamily(
        "llamavisor_model_request_duration_seconds", "From its acceptance to the end of its answer.", labels=["model"]
    )
    queue_wait = HistogramMetricFamily(
        "llamavisor_model_queue_wait_seconds", "Waiting for a place, or for the model.", labels=["model"]
    )
    first_token = HistogramMetricFamily(
        "llamavisor_model_time_to_first_token_seconds", "Until a stream's first byte from the engine.", labels=["model"]
    )
    inter_token = HistogramMetricFamily(
        "llamavisor_model_inter_token_latency_seconds",
        "A stream's mean time a token after the first.",
        labels=["model"],
    )
    yield _with(duration, models, lambda meters: meters.duration)
    yield _with(queue_wait, models, lambda meters: meters.queue_wait)
    yield _with(first_token, models, lambda meters: meters.first_token)
    yield _with(inter_token, models, lambda meters: meters.inter_token)


def _of_projects(projects: Mapping[str, Used]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "llamavisor_project_requests", "Settled requests by project.", labels=["project", "outcome"]
    )
    tokens = CounterMetricFamily("llamavisor_project_tokens", "Tokens by project.", labels=["project", "kind"])
    cost = CounterMetricFamily("llamavisor_project_cost_micros", "Cost by project, in micro-units.", labels=["project"])
    yield from _filled(requests, tokens, cost, projects)


def _filled(
    requests: CounterMetricFamily, tokens: CounterMetricFamily, cost: CounterMetricFamily, used: Mapping[str, Used]
) -> Iterator[Metric]:
    for name, figures in used.items():
        for outcome, count in figures.by_outcome.items():
            requests.add_metric([name, outcome], count)
        for kind, count in tokens_by_kind(figures):
            tokens.add_metric([name, kind], count)
        cost.add_metric([name], figures.cost_micros)
    yield from (requests, tokens, cost)


def _with(family: HistogramMetricFamily, named: Mapping[str, T], histogram_of: Callable[[T], Histogram]) -> Metric:
    for name, meters in named.items():
        histogram = histogram_of(meters)
        family.add_metric([name], histogram.cumulative(), histogram.sum_seconds)
    return family
