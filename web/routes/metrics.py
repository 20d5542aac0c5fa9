"""`GET /metrics` for Prometheus: read from the supervisor when asked, so that nobody pays for it in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from supervisor.core import Supervisor
from supervisor.process.states import State
from web.live.server import LiveServer
from web.registry import PLAIN, Policy, Reply, RouteTable
from web.schemas import STRING
from web.state_times import StateTimesReader
from web.usage_metrics import usage_metrics

METRICS = web.AppKey("metrics", CollectorRegistry)
PERCENT = 100

routes = RouteTable("Metrics")


@routes.route(
    "GET",
    "/metrics",
    summary="Metrics for Prometheus",
    policy=Policy.READ,
    responses={200: Reply("The text format, or OpenMetrics where `Accept` asks for it.", STRING, PLAIN)},
)
async def metrics(request: web.Request) -> web.Response:
    """All names begin with `llamavisor_`."""
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    body = encode(request.app[METRICS])
    return web.Response(body=body, headers={"Content-Type": content_type})


class SupervisorCollector(Collector):
    """Turns what the supervisor knows at this moment into metrics."""

    def __init__(self, supervisor: Supervisor, states: StateTimesReader, live: LiveServer) -> None:
        self._supervisor = supervisor
        self._states = states
        self._live = live

    def describe(self) -> Iterable[Metric]:
        """Nothing: names would have to be collected for it, before the supervisor is open."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        parts: tuple[Callable[[], Iterator[Metric]], ...] = (
            self._whole,
            self._state,
            self._process,
            self._placement,
            self._traffic,
            self._energy,
            self._captures,
            self._usage,
            self._dashboards,
        )
        for part in parts:
            yield from part()

    def _whole(self) -> Iterator[Metric]:
        supervisor = self._supervisor
        yield InfoMetricFamily(
            "llamavisor_build", "The supervisor that answers.", value={"version": supervisor.version}
        )
        uptime = supervisor.clock.monotonic() - supervisor.started_monotonic
        yield GaugeMetricFamily("llamavisor_uptime_seconds", "Seconds since the supervisor started.", value=uptime)
        yield CounterMetricFamily("llamavisor_events", "Events published.", value=supervisor.events.seq)

    def _state(self) -> Iterator[Metric]:
        present = GaugeMetricFamily(
            "llamavisor_instance_state", "1 for the state that an instance is in.", labels=["instance", "state"]
        )
        for instance in self._supervisor.fleet.instances():
            for state in State:
                present.add_metric([instance.name, state.value], float(instance.state is state))
        yield present
        seconds = CounterMetricFamily(
            "llamavisor_instance_state_seconds", "Seconds spent in each state.", labels=["instance", "state"]
        )
        self._states.catch_up()
        for labels, value in self._states.times.seconds(self._supervisor.clock.monotonic()).items():
            seconds.add_metric(labels, value)
        yield seconds
        restarts = CounterMetricFamily(
            "llamavisor_instance_restarts", "Restarts after a crash, by its reason.", labels=["instance", "reason"]
        )
        for key, count in self._states.times.restarts.items():
            restarts.add_metric(key, count)
        yield restarts

    def _process(self) -> Iterator[Metric]:
        memory = GaugeMetricFamily(
            "llamavisor_instance_memory_bytes", "Resident memory of an instance's processes.", labels=["instance"]
        )
        cores = GaugeMetricFamily(
            "llamavisor_instance_cpu_cores", "Processor cores that an instance keeps busy.", labels=["instance"]
        )
        uptime = GaugeMetricFamily(
            "llamavisor_instance_uptime_seconds", "Seconds since its process started.", labels=["instance"]
        )
        lost = CounterMetricFamily(
            "llamavisor_instance_output_dropped_bytes",
            "Output that came faster than it can be kept.",
            labels=["instance"],
        )
        unwritten = CounterMetricFamily(
            "llamavisor_instance_log_write_errors", "Failed writes to the log file.", labels=["instance"]
        )
        usage = self._supervisor.fleet.usage().instances
        for instance in self._supervisor.fleet.instances():
            name = [instance.name]
            if instance.name in usage:
                memory.add_metric(name, usage[instance.name].memory_bytes)
                cores.add_metric(name, usage[instance.name].cpu_percent / PERCENT)
            uptime.add_metric(name, instance.snapshot().uptime_seconds)
            lost.add_metric(name, instance.output.dropped_bytes)
            unwritten.add_metric(name, instance.output.write_errors)
        yield from (memory, cores, uptime, lost, unwritten)

    def _placement(self) -> Iterator[Metric]:
        loads = CounterMetricFamily("llamavisor_instance_loads", "Starts that ended well.", labels=["instance"])
        unloads = CounterMetricFamily(
            "llamavisor_instance_unloads", "Unloaded by the supervisor, by why.", labels=["instance", "reason"]
        )
        times = self._states.times
        for name, count in times.loads.items():
            loads.add_metric([name], count)
        for key, count in times.unloads.items():
            unloads.add_metric(key, count)
        yield from (loads, unloads)

    def _traffic(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "llamavisor_requests", "Requests by how they ended.", labels=["instance", "outcome"]
        )
        tokens = CounterMetricFamily("llamavisor_tokens", "Tokens generated through the gateway.", labels=["instance"])
        active = GaugeMetricFamily("llamavisor_requests_active", "Requests being served.", labels=["instance"])
        queued = GaugeMetricFamily("llamavisor_requests_queued", "Requests that wait for it.", labels=["instance"])
        places = GaugeMetricFamily(
            "llamavisor_instance_places", "Requests that are passed to it at once.", labels=["instance"]
        )
        for instance in self._supervisor.fleet.instances():
            figures = self._supervisor.gateway.traffic.figures([instance.name])
            for outcome, count in figures.by_outcome.items():
                requests.add_metric([instance.name, outcome], count)
            tokens.add_metric([instance.name], figures.tokens_total)
            active.add_metric([instance.name], instance.requests_active)
            queued.add_metric([instance.name], figures.queued)
            places.add_metric([instance.name], self._supervisor.gateway.admission.limit_of(instance.name))
        yield from (requests, tokens, active, queued, places)

    def _energy(self) -> Iterator[Metric]:
        energy = CounterMetricFamily(
            "llamavisor_instance_energy_joules", "Energy charged to requests, modelled.", labels=["instance"]
        )
        for name, joules in self._supervisor.gateway.energy.joules().items():
            energy.add_metric([name], joules)
        yield energy

    def _captures(self) -> Iterator[Metric]:
        captures = CounterMetricFamily(
            "llamavisor_captures", "Requests whose bodies were kept, or not.", labels=["result"]
        )
        capture = self._supervisor.gateway.capture
        for result, count in capture.counts.items() if capture is not None else ():
            captures.add_metric([result], count)
        yield captures

    def _usage(self) -> Iterator[Metric]:
        return usage_metrics(self._supervisor.meters)

    def _dashboards(self) -> Iterator[Metric]:
        live = self._live
        yield GaugeMetricFamily("llamavisor_live_clients", "Socket.IO clients.", value=len(live.fanout))
        yield CounterMetricFamily(
            "llamavisor_live_clients_dropped",
            "Clients dropped because they did not read.",
            value=live.fanout.dropped_total,
        )
        yield GaugeMetricFamily(
            "llamavisor_event_subscribers", "Readers of the event log.", value=self._supervisor.events.subscriber_count
        )


def registry_of(collector: Collector) -> CollectorRegistry:
    """A registry of its own: the global one holds whatever libraries put there."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return registry
