"""Settings of the gateway: the queue before the instances, replicas that fail, streams that wait, fallbacks; and their rules across keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from supervisor.config.fields import BrokenRule, Count, GraceSeconds, Seconds, StrictModel, Text, refuse
from supervisor.config.suggestions import remedy_for

PerSlot = Annotated[
    float, Field(strict=True, gt=0, le=1000, allow_inf_nan=False, json_schema_extra={"x-unit": "requests a slot"})
]


class GatewaySettings(StrictModel):
    """How requests are let through to the instances."""

    queue_limit: Count = Field(256, description="Requests that may wait for one model; who asks for more gets a 429.")
    queue_seconds: Seconds = Field(
        300.0, description="Longest that a request waits for a model to be ready and for a place there."
    )
    in_flight_per_slot: PerSlot = Field(
        2.0, description="Requests that are let through to an engine at a time, for each of its slots."
    )
    status_open_seconds: GraceSeconds = Field(
        10.0,
        description="Time for which a stream that waits keeps its status open, so that a refusal has its true one; "
        "after that it is 200, and a refusal comes as an event.",
    )
    comment_seconds: Seconds = Field(5.0, description="Pause between two comments that keep a waiting stream alive.")
    eject_failures: Count = Field(
        3, description="Requests in a row that a replica must fail to be left alone for a while; the last one never is."
    )
    eject_seconds: Seconds = Field(
        10.0, description="Time for which a replica that keeps failing is left alone; it doubles each time in a row."
    )
    eject_max_seconds: Seconds = Field(300.0, description="Longest time for which a replica is left alone.")
    fallbacks: dict[Text, tuple[Text, ...]] = Field(
        default_factory=dict,
        description="Names of the models to take, in this order, when the named one cannot serve.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        broken: list[BrokenRule] = []
        if self.eject_seconds > self.eject_max_seconds:
            message = (
                f"`eject_seconds` ({self.eject_seconds:g}) is above `eject_max_seconds` ({self.eject_max_seconds:g})"
            )
            broken.append(("eject_seconds", message, "raise `eject_max_seconds` or lower `eject_seconds`"))
        loop = find_loop(self.fallbacks)
        if loop is not None:
            message = f"the fallbacks go round in a circle: {' → '.join(loop)}"
            broken.append((("fallbacks", loop[0]), message, "take one of these names out of the other's list"))
        refuse(broken)
        return self


def find_loop(chains: Mapping[str, Sequence[str]]) -> tuple[str, ...] | None:
    """The first circle that following fallbacks leads into, its first name repeated at its end; None when there is none."""
    done: set[str] = set()
    for start in chains:
        # Depth first, without recursion: a chain may be longer than Python's stack.
        trail = {start: iter(chains[start])}
        while trail:
            name = next(reversed(trail))
            following = next((each for each in trail[name] if each not in done), None)
            if following is None:
                del trail[name]
                done.add(name)
            elif following in trail:
                names = list(trail)
                return (*names[names.index(following) :], following)
            else:
                trail[following] = iter(chains.get(following, ()))
    return None


def fallback_rules(chains: Mapping[str, Sequence[str]], known: Collection[str]) -> list[BrokenRule]:
    """The names in fallbacks that mean nothing; `known` are all that requests may give."""
    return [
        (("gateway", "fallbacks", name), f"`{word}` is no model's name", remedy_for(word, known))
        for name, chain in chains.items()
        for word in dict.fromkeys((name, *chain))
        if word not in known
    ]
