"""Settings of what is seen of the requests: metrics and traces."""

from __future__ import annotations

from typing import Annotated

from pydantic import AnyHttpUrl, Field

from supervisor.config.fields import Count, Ratio, StrictModel

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
