"""What models compete for, as amounts by name: bytes of memory, bytes of each GPU's memory, places in groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Amounts = Mapping[str, int]
"""How much of each resource: bytes, or places of a group. What is not named is not needed, or not limited."""

HOST = "memory"
_GPU, _GROUP = "gpu", "group:"
_UNITS = ("B", "kB", "MB", "GB", "TB")


def gpu(index: int) -> str:
    """The name of a GPU's memory."""
    return f"{_GPU}{index}"


def group(name: str) -> str:
    """The name of the places in a group."""
    return f"{_GROUP}{name}"


def is_group(resource: str) -> bool:
    """Whether it counts places, not bytes."""
    return resource.startswith(_GROUP)


def total(amounts: Iterable[Amounts]) -> dict[str, int]:
    """The sum, resource by resource."""
    summed: dict[str, int] = {}
    for one in amounts:
        for resource, amount in one.items():
            summed[resource] = summed.get(resource, 0) + amount
    return summed


def minus(amounts: Amounts, taken: Amounts) -> dict[str, int]:
    """What is left of `amounts`, below zero too; what they do not name stays unlimited."""
    return {resource: amount - taken.get(resource, 0) for resource, amount in amounts.items()}


def missing(needs: Amounts, free: Amounts) -> dict[str, int]:
    """How much of each resource is lacking; empty: it fits. Who needs nothing of a resource lacks nothing, however short it is."""
    lacks = {resource: need - free[resource] for resource, need in needs.items() if need and resource in free}
    return {resource: lack for resource, lack in lacks.items() if lack > 0}


def bytes_text(amount: int) -> str:
    """Bytes for people, in powers of a thousand: `5.1 GB`."""
    size, unit = float(amount), 0
    while abs(size) >= 999.95 and unit < len(_UNITS) - 1:
        size, unit = size / 1_000, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{amount} B"


def what_text(resource: str) -> str:
    """The resource in a sentence."""
    if is_group(resource):
        return f"the group `{resource.removeprefix(_GROUP)}`"
    return "memory" if resource == HOST else f"memory of GPU {resource.removeprefix(_GPU)}"
