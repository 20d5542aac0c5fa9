"""Settings of what is seen of the requests: metrics, traces, energy, copies of the bodies."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, AnyHttpUrl, Field
from pydantic_core import PydanticCustomError

from supervisor.config.fields import Bytes, Count, PositiveRatio, Ratio, StrictModel, Text, Watts

REDACTED_FIELDS = (
    "access_token",
    "api_key",
    "apikey",
    "authorization",
    "client_secret",
    "passwd",
    "password",
    "private_key",
    "refresh_token",
    "secret",
)


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, RecursionError) as error:
        raise PydanticCustomError("pattern", "must be a regular expression: {why}", {"why": str(error)}) from None
    return pattern


Pattern = Annotated[Text, AfterValidator(_compiles)]

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


class CaptureSettings(StrictModel):
    """Copies of the bodies of requests and answers, redacted, in the folder `captures` of the data folder."""

    projects: tuple[Text, ...] = Field(
        (), description="Projects of which bodies are kept, `*` for all; left out, none."
    )
    sample_ratio: PositiveRatio = Field(1.0, description="Share of their requests of which they are kept.")
    max_bytes: Bytes = Field(65_536, description="Most that is kept of each body, once it is redacted.")
    retention_days: Count = Field(7, description="Days that they are kept, the present one included.")
    patterns: tuple[Pattern, ...] = Field(
        (), description="Regular expressions (Python's) of what is redacted beside keys, tokens and e-mail addresses."
    )
    fields: tuple[Text, ...] = Field(
        REDACTED_FIELDS, description="Names of JSON fields whose values are redacted, wherever they stand."
    )
