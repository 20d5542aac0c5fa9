"""What a request will probably use, learned from those before it: a high quantile, not the worst case, for others cannot use what is held back.

For each project, endpoint and surface the last answers are kept: how many tokens they had, and how many prompt tokens came of a KiB of body. Nothing
is random, and no clock is asked: the same requests lead to the same estimates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from supervisor.storage.records import TokenUsage

WINDOW = 64
"""Answers that an estimate rests on: few enough to follow a change, enough for a high percentile."""

REFRESH = 8
"""Answers after which the estimate is reckoned anew; before the first so many, the default is better."""

KIB = 1024
MOST_TRAITS = 4096
"""Combinations of project, endpoint and surface that are learned; beyond it the one that came first is forgotten."""


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What is assumed before there is experience, and how careful to be: `percentile` of the past answers were no longer than the estimate.

    Prompts are taken to have a token for every `bytes_per_token` bytes of the body, and never more than `most_prompt_tokens`: a picture is many
    bytes and few tokens.
    """

    completion_tokens: int = 512
    bytes_per_token: int = 4
    most_prompt_tokens: int = 32_768
    percentile: int = 90


class Estimate(NamedTuple):
    """Tokens of a request that has not been served yet."""

    prompt_tokens: int
    completion_tokens: int


class _Experience:
    """The last `WINDOW` answers, and what they suggest; reckoned anew with every `REFRESH` of them."""

    __slots__ = ("_completions", "_count", "_per_kib", "completion_tokens", "prompt_tokens_per_kib")

    def __init__(self) -> None:
        self._completions: list[int] = []
        self._per_kib: list[int] = []
        self._count = 0
        self.completion_tokens: int | None = None
        self.prompt_tokens_per_kib = 0

    def add(self, completion_tokens: int, prompt_tokens_per_kib: int, percentile: int) -> None:
        """Take an answer in the place of the one that came `WINDOW` before."""
        if self._count < WINDOW:
            self._completions.append(completion_tokens)
            self._per_kib.append(prompt_tokens_per_kib)
        else:
            at = self._count % WINDOW
            self._completions[at] = completion_tokens
            self._per_kib[at] = prompt_tokens_per_kib
        self._count += 1
        if self._count % REFRESH == 0:
            self.completion_tokens = percentile_of(self._completions, percentile)
            self.prompt_tokens_per_kib = percentile_of(self._per_kib, percentile)


def percentile_of(values: list[int], percentile: int) -> int:
    """The least of the values (at least one) that so many of 100 do not exceed."""
    rank = -(-len(values) * percentile // 100)
    return sorted(values)[max(0, rank - 1)]


class Estimator:
    """See the module."""

    def __init__(self, assumptions: Assumptions) -> None:
        self.assumptions = assumptions
        self._known: dict[tuple[str, str, str], _Experience] = {}

    def estimate(
        self, project: str, endpoint: str, surface: str, body_length: int, max_tokens: int | None, answers: int = 1
    ) -> Estimate:
        """Tokens that a request with a body of so many bytes will probably use.

        It asks for so many `answers` (choices of each prompt), which never have more than `max_tokens` together.
        """
        assumed = self.assumptions
        known = self._known.get((project, endpoint, surface))
        if known is None or known.completion_tokens is None:
            completion = assumed.completion_tokens
            prompt = -(-body_length // assumed.bytes_per_token)
        else:
            completion = known.completion_tokens
            prompt = -(-body_length * known.prompt_tokens_per_kib // KIB)
        if prompt > assumed.most_prompt_tokens * answers:
            prompt = assumed.most_prompt_tokens * answers
        completion *= answers
        return Estimate(prompt, completion if max_tokens is None or completion < max_tokens else max_tokens)

    def learn(
        self, project: str, endpoint: str, surface: str, body_length: int, usage: TokenUsage, answers: int = 1
    ) -> None:
        """Take in what a complete request, of so many answers, really used."""
        key = (project, endpoint, surface)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= MOST_TRAITS:
                del self._known[next(iter(self._known))]
            known = self._known[key] = _Experience()
        per_kib = -(-usage.prompt_tokens * KIB // (body_length or 1))
        known.add(-(-usage.completion_tokens // answers), per_kib, self.assumptions.percentile)
