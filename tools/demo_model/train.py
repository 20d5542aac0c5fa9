"""The training run: tokenizer, then model, on one corpus file; the same seed and thread count give the same model."""

import itertools
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .batches import endless_batches
from .corpus import read_corpus
from .model import Batch, Llama, Shape
from .optimizer import AdamW, Schedule
from .reporting import report
from .tokenizer import Encoded, encode_chats, train_tokenizer

REPORT_INTERVAL_SECONDS = 5.0
LOSS_MEMORY = 0.95


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """What a run needs to know. The budget is counted in tokens, not in time, so that a run can be repeated.

    `longest_chat` (tokens) is where conversations are cut; above the shape's context: ValueError.
    """

    tokens: int = 3_500_000
    batch_tokens: int = 1024
    longest_chat: int = 1024
    seed: int = 0
    shape: Shape = field(default_factory=Shape)
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if self.longest_chat > self.shape.context:
            raise ValueError(f"longest_chat {self.longest_chat} exceeds the context {self.shape.context}: lower it")


def train(corpus: Path, model_path: Path, tokenizer_path: Path, settings: TrainingSettings) -> Llama:
    """Train on a corpus file, write tokenizer and model, and return the model."""
    data = _prepare(corpus, tokenizer_path, settings)
    model = Llama.random(settings.shape, settings.seed)
    report("model", parameters=sum(value.size for value in model.parameters.values()))
    batches = endless_batches(data, settings.batch_tokens, settings.shape.context, settings.seed)
    _run(model, batches, settings)
    model.save(model_path)
    return model


def _prepare(corpus: Path, tokenizer_path: Path, settings: TrainingSettings) -> list[Encoded]:
    chats = read_corpus(corpus)
    texts = (text for chat in chats for message in chat for text in (f"{message['role']}\n", message["content"]))
    tokenizer = train_tokenizer(texts, settings.shape.vocabulary)
    tokenizer.save(str(tokenizer_path))
    data = encode_chats(tokenizer, chats, settings.longest_chat)
    report(
        "corpus",
        conversations=len(data),
        tokens=sum(len(item.ids) for item in data),
        vocabulary=settings.shape.vocabulary,
    )
    return data


def _run(model: Llama, batches: Iterator[Batch], settings: TrainingSettings) -> None:
    optimizer = AdamW(model.parameters)
    started = reported = time.monotonic()
    seen, smooth = 0, None
    for step in itertools.count(1):
        progress = min(1.0, seen / settings.tokens)
        batch = next(batches)
        loss, grads = model.gradients(batch)
        optimizer.step(grads, settings.schedule.rate(progress))
        seen += int((batch.ids > 0).sum())
        smooth = loss if smooth is None else LOSS_MEMORY * smooth + (1 - LOSS_MEMORY) * loss
        now = time.monotonic()
        done = seen >= settings.tokens
        if done or now - reported >= REPORT_INTERVAL_SECONDS:
            reported = now
            _report_step("trained" if done else "step", step, smooth, seen, now - started, settings.tokens)
        if done:
            return


def _report_step(event: str, step: int, loss: float, seen: int, seconds: float, budget: int) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    report(
        event,
        step=step,
        loss=round(loss, 4),
        tokens=seen,
        progress=round(min(1.0, seen / budget), 4),
        tokens_per_second=round(seen / seconds),
        seconds=round(seconds, 1),
        cpu_seconds=round(usage.ru_utime + usage.ru_stime, 1),
        memory_mib=usage.ru_maxrss // 1024,
    )
