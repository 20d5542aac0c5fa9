"""Field types shared by the settings models: each fixes the range and the unit of a figure.

Numbers and booleans are strict (the text "8080" is no number in a file); the environment layer converts text before it comes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

YEAR_SECONDS = 31_536_000
TEBIBYTE = 1024**4
LARGEST_COUNT = 2**31 - 1
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"

Flag = Annotated[bool, Field(strict=True)]
Seconds = Annotated[
    float, Field(strict=True, gt=0, le=YEAR_SECONDS, allow_inf_nan=False, json_schema_extra={"x-unit": "seconds"})
]
GraceSeconds = Annotated[
    float, Field(strict=True, ge=0, le=YEAR_SECONDS, allow_inf_nan=False, json_schema_extra={"x-unit": "seconds"})
]
Ratio = Annotated[
    float, Field(strict=True, ge=0, le=1, allow_inf_nan=False, json_schema_extra={"x-unit": "share, 0 to 1"})
]
PositiveRatio = Annotated[
    float, Field(strict=True, gt=0, le=1, allow_inf_nan=False, json_schema_extra={"x-unit": "share, 0 to 1"})
]
Watts = Annotated[
    float, Field(strict=True, gt=0, le=1_000_000, allow_inf_nan=False, json_schema_extra={"x-unit": "watts"})
]
Bytes = Annotated[int, Field(strict=True, ge=1024, le=TEBIBYTE, json_schema_extra={"x-unit": "bytes"})]
Count = Annotated[int, Field(strict=True, ge=1, le=LARGEST_COUNT, json_schema_extra={"x-unit": "count"})]
CountOrZero = Annotated[int, Field(strict=True, ge=0, le=LARGEST_COUNT, json_schema_extra={"x-unit": "count"})]
Retries = Annotated[int, Field(strict=True, ge=0, le=1000, json_schema_extra={"x-unit": "tries"})]
Misses = Annotated[int, Field(strict=True, ge=1, le=1000, json_schema_extra={"x-unit": "probes"})]
Tokens = Annotated[int, Field(strict=True, ge=1, le=LARGEST_COUNT, json_schema_extra={"x-unit": "tokens"})]
Lines = Annotated[int, Field(strict=True, ge=1, le=1_000_000, json_schema_extra={"x-unit": "lines"})]
Threads = Annotated[int, Field(strict=True, ge=1, le=4096, json_schema_extra={"x-unit": "threads"})]
Seed = Annotated[int, Field(strict=True, ge=0, le=2**32 - 1, json_schema_extra={"x-unit": "number"})]
Port = Annotated[int, Field(strict=True, ge=1, le=65535, json_schema_extra={"x-unit": "port number"})]
ListenPort = Annotated[int, Field(strict=True, ge=0, le=65535, json_schema_extra={"x-unit": "port number, 0 = any"})]
Text = Annotated[str, Field(min_length=1, max_length=4096)]
InstanceName = Annotated[str, Field(pattern=NAME_PATTERN)]
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]

BrokenRule = tuple[str | tuple[str, ...], str, str]
"""Key of the model that checks the rule, or the path to it from there; message; remedy."""


class StrictModel(BaseModel):
    """Base of every settings model: unknown keys are refused, values never change, errors never quote the input."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, protected_namespaces=())


def refuse(broken: Sequence[BrokenRule]) -> None:
    """Raise one validation error for all broken rules of a model; nothing happens when there are none."""
    if broken:
        summary = "; ".join(f"{message}; {remedy}" for _, message, remedy in broken)
        raise PydanticCustomError("broken_rules", "{summary}", {"summary": summary, "problems": list(broken)})
