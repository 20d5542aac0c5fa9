"""Settings of the door: who waits, how long, and what is told meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from supervisor.config.fields import BrokenRule, Bytes, Count, GraceSeconds, Seconds, StrictModel, Text
from supervisor.config.suggestions import remedy_for


class GatewaySettings(StrictModel):
    """The way of a request to its engine."""

    queue_limit: Count = Field(
        256,
        description="Requests that may wait for one model; of a full line the newest of whoever holds the most leaves for others.",
    )
    queue_seconds: GraceSeconds = Field(
        120.0, description="Longest wait for a place or for a model that is being loaded; 0 refuses instead of waiting."
    )
    in_flight_per_slot: Count = Field(2, description="Requests passed to an engine at once, for each of its slots.")
    status_open_seconds: Seconds = Field(
        10.0, description="Time that a waiting stream keeps its status open, so that a refusal still has its true one."
    )
    comment_seconds: Seconds = Field(5.0, description="Interval of the comments that keep a waiting stream alive.")
    resume_seconds: GraceSeconds = Field(
        60.0,
        description="Longest time that a stream is kept up without its client, who must have asked for it (`X-Llamavisor-Resume`); 0: none is.",
    )
    resume_bytes: Bytes = Field(
        4 * 1024**2, description="Events kept of each such stream; the oldest go first, and cannot be read again."
    )
    resume_streams: Count = Field(
        64,
        description="Such streams kept at once, at most half of them of one key; beyond that, streams end with their clients.",
    )
    fallbacks: dict[Text, tuple[Text, ...]] = Field(
        default_factory=dict,
        description="Models to take, in this order, when the named one cannot serve; an answer that has begun stays with its model.",
    )
    fallback_resends: bool = Field(
        False,
        description="Whether fallbacks also get requests whose engine, which has them, dies, is silent or fails before it answers.",
    )


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


def chains_by_meaning(chains: Mapping[str, Sequence[str]], meanings: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The fallbacks with each name as what it means (`placement_settings.meanings`), so that a chain is the same by whatever name it is asked for."""
    return {
        meanings.get(name, name): tuple(meanings.get(word, word) for word in chain) for name, chain in chains.items()
    }


def fallback_rules(chains: Mapping[str, Sequence[str]], meanings: Mapping[str, str]) -> list[BrokenRule]:
    """Names in fallbacks that mean nothing, two lists for one model, and lists that go round in a circle."""
    broken: list[BrokenRule] = [
        (("gateway", "fallbacks", name), f"`{word}` is no model's name", remedy_for(word, meanings))
        for name, chain in chains.items()
        for word in dict.fromkeys((name, *chain))
        if word not in meanings
    ]
    keys: dict[str, str] = {}
    for name in chains:
        first = keys.setdefault(meanings.get(name, name), name)
        if first != name:
            message = f"`{name}` and `{first}` mean the same, and both have fallbacks"
            broken.append((("gateway", "fallbacks", name), message, "put them into one list"))
    loop = find_loop(chains_by_meaning(chains, meanings))
    if loop is not None:
        message = f"the fallbacks go round in a circle: {' → '.join(loop)}"
        remedy = "take one of these names out of the other's list"
        broken.append((("gateway", "fallbacks", keys[loop[0]]), message, remedy))
    return broken
