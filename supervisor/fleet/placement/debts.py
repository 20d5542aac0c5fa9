"""Memory that was given up and is not back yet: the machine's own count decides, up to a deadline."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from supervisor.fleet.placement.eviction import Tenant
from supervisor.fleet.placement.memory import MachineMemory
from supervisor.fleet.placement.resources import HOST, bytes_text, gpu, total, what_text

logger = logging.getLogger(__name__)

DEADLINE_SECONDS = 10.0
# Others take and give back meanwhile, and page tables are nobody's.
SHARE_THAT_MUST_BE_BACK = 0.8
# Less than this comes and goes without us.
WORTH_WAITING_FOR_BYTES = 64 * 1024**2


@dataclass(slots=True)
class _Debt:
    expected: int
    until: float | None = None


class Debts:
    """What is owed, by resource. Pure but for the log: the caller brings readings and times."""

    def __init__(self) -> None:
        self._debts: dict[str, _Debt] = {}

    def incur(self, machine: MachineMemory, leaving: Iterable[Tenant]) -> None:
        """These are being unloaded: so much is to be free afterwards."""
        counts = free_by_count(machine)
        for resource, amount in total(tenant.gives_back for tenant in leaving).items():
            if resource in counts and amount >= WORTH_WAITING_FOR_BYTES:
                due = round(amount * SHARE_THAT_MUST_BE_BACK)
                before = self._debts.get(resource)
                self._debts[resource] = _Debt((counts[resource] if before is None else before.expected) + due)

    def outstanding(self, machine: MachineMemory, now: float, *, anyone_leaving: bool) -> frozenset[str]:
        """The resources that are still owed by those who are gone. A debt is forgotten once it is paid, or too late."""
        if anyone_leaving:
            return frozenset()
        counts = free_by_count(machine)
        for resource, debt in list(self._debts.items()):
            if debt.until is None:
                debt.until = now + DEADLINE_SECONDS
            is_late = now >= debt.until
            if is_late or counts.get(resource, debt.expected) >= debt.expected:
                del self._debts[resource]
                if is_late:
                    _tell_late(resource, debt, counts.get(resource, 0))
        return frozenset(self._debts)


def free_by_count(machine: MachineMemory) -> dict[str, int]:
    """What the machine counts as free, by resource."""
    return {HOST: machine.available_bytes, **{gpu(index): one.free_bytes for index, one in machine.gpus.items()}}


def _tell_late(resource: str, debt: _Debt, free: int) -> None:
    logger.warning(
        "%s: %s were to be free after an unload, and only %s are after %g s; going on with that.",
        what_text(resource),
        bytes_text(debt.expected),
        bytes_text(free),
        DEADLINE_SECONDS,
    )
