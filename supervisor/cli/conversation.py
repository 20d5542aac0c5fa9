"""What was said in a chat, and what is sent for the next answer. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Sampling:
    """What the person set; None leaves it to the server."""

    model: str | None = None
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None


@dataclass(slots=True)
class Conversation:
    """Turns of a person and a model. A question whose answer failed is kept aside for `retry`, not sent again with the next one."""

    sampling: Sampling = field(default_factory=Sampling)
    _turns: list[dict[str, str]] = field(default_factory=list)
    _question: str | None = None

    @property
    def question(self) -> str | None:
        """The newest question, answered or not."""
        return self._question

    def request(self, question: str) -> dict[str, Any]:
        """Ask `question` next: the body of the chat completion, streamed."""
        self._question = question
        system = [{"role": "system", "content": self.sampling.system}] if self.sampling.system else []
        body: dict[str, Any] = {
            "messages": [*system, *self._turns, {"role": "user", "content": question}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for key in ("model", "temperature", "max_tokens"):
            value = getattr(self.sampling, key)
            if value is not None:
                body[key] = value
        return body

    def answered(self, text: str) -> None:
        """The newest question got this answer, whole or stopped by the person."""
        if self._question is not None and text:
            self._turns += [{"role": "user", "content": self._question}, {"role": "assistant", "content": text}]

    def take_back(self) -> str | None:
        """Forget the newest question with its answer, to ask it again; None when nothing was asked."""
        question = self._question
        if self._turns and self._turns[-2]["content"] == question:
            del self._turns[-2:]
        return question

    def clear(self) -> None:
        """Begin anew; the settings stay."""
        self._turns.clear()
        self._question = None
