"""Which models may stand in for one that cannot serve, and in which order. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from supervisor.config.gateway_settings import find_loop
from supervisor.errors import InvalidConfigurationError


def fallback_order(name: str, chains: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The name itself, then what to try in its place: its fallbacks in their order, after each the fallbacks of that one; every name once.

    `InvalidConfigurationError` when the chains go round in a circle anywhere (a configuration with such chains is refused as a whole).
    """
    loop = find_loop(chains)
    if loop is not None:
        raise InvalidConfigurationError(
            f"The fallbacks go round in a circle: {' → '.join(loop)}.", param=f"gateway.fallbacks.{loop[0]}"
        )
    order: dict[str, None] = {}
    upcoming = [name]
    while upcoming:
        following = upcoming.pop()
        if following not in order:
            order[following] = None
            upcoming += reversed(chains.get(following, ()))
    return tuple(order)
