"""Settings of what is seen of the requests: metrics, traces, energy."""

from __future__ import annotations

from typing import Annotated

from pydantic import AnyHttpUrl, Field

from supervisor.config.fields import Count, Ratio, StrictModel, Watts

GramsPerKwh = Annotated[
    float, Field(strict=True, ge=0, le=10_000, allow_inf_nan=False, json_schema_extra={"x-unit": "grams a kWh"})
]
ServiceName = Annotated[str, Field(min_length=1, max_length=200)]


class TelemetrySettings(StrictModel):
    """Metrics, and traces of the requests (they need the extra `llamavisor[otel]`)."""

    label_values: Count = Field(
        100, description="Models, and projects, that have metrics of their own; those that come later are `other`."
    )
    endpoint: AnyHttpUrl | None = Field(
        None,
        description="Receiver of traces by OTLP over HTTP, such as `http://127.0.0.1:4318` (the path, left out: `/v1/traces`); "
        "left out, none are made.",
    )
    service_name: ServiceName = Field("llamavisor", description="Name of this server in traces.")
    sample_ratio: Ratio = Field(
        1.0,
        description="Share of the requests that are traced, of those that do not come with a decision of their own (`traceparent`).",
    )
    queue_spans: Count = Field(2048, description="Spans that may wait to be sent; what comes beyond is dropped.")


class EnergySettings(StrictModel):
    """What requests are charged of the energy that is drawn; without a figure of the power nothing is claimed."""

    busy_watts: Watts | None = Field(
        None,
        description="Power that an instance draws while it works on requests, where it has no `busy_watts` of its own.",
    )
    co2_grams_per_kwh: GramsPerKwh | None = Field(
        None, description="Carbon dioxide that a kilowatt hour emits where this machine stands."
    )
