"""A conversation at the terminal: questions of one or many lines, commands, answers that can be stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from rich.text import Text

from supervisor.cli.answering import Answer
from supervisor.cli.client import Client
from supervisor.cli.conversation import Conversation
from supervisor.cli.output import complain, printable, stdout
from supervisor.cli.place import ServerPlace
from supervisor.cli.showing import show_answer, show_end
from supervisor.config.suggestions import remedy_for
from supervisor.errors import LlamavisorError

PROMPT = "you> "
CONTINUATION = "...> "
BLOCK_MARK = '"""'
HELP = f"""\
/help            this list
/model [NAME]    take another model, or list them
/system [TEXT]   set the instruction to the model, or take it away
/retry           ask the last question again
/clear           forget what was said
/quit            leave (also Ctrl-D)

A line that ends with a backslash goes on in the next; {BLOCK_MARK} begins and ends a text of many lines. Ctrl-C stops an answer."""


class ChatSession:
    """Reads and answers until the person leaves. `read` takes a prompt and gives a line; EOFError ends the session."""

    def __init__(self, place: ServerPlace, conversation: Conversation, read: Callable[[str], str] = input) -> None:
        self._place = place
        self._conversation = conversation
        self._read = read
        self._open = True
        self._commands: dict[str, Callable[[str], None]] = {
            "help": self._help,
            "model": self._model,
            "system": self._system,
            "retry": self._retry,
            "clear": self._clear,
            "quit": self._quit,
        }

    def run(self) -> None:
        """The whole session. NoServerError when there is no server to begin with."""
        models = asyncio.run(_models(self._place))
        self._tell(f"Chat at {self._place.url} with {self._conversation.sampling.model or models[0]}.")
        self._tell("/help lists the commands; Ctrl-D leaves.")
        # Its import gives `input` a history and editing of the line.
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401
        while self._open:
            try:
                self._take(self._read_text())
            except KeyboardInterrupt:
                self._tell("Ctrl-D leaves.")
            except EOFError:
                self._tell("")
                return

    def _read_text(self) -> str:
        line = self._read(PROMPT)
        if line.strip().startswith(BLOCK_MARK):
            return self._read_block(line.strip().removeprefix(BLOCK_MARK))
        lines = [line]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(self._read(CONTINUATION))
        return "\n".join(lines)

    def _read_block(self, line: str) -> str:
        lines = []
        while not line.rstrip().endswith(BLOCK_MARK):
            lines.append(line)
            line = self._read(CONTINUATION)
        return "\n".join([*lines, line.rstrip().removesuffix(BLOCK_MARK)])

    def _take(self, text: str) -> None:
        if not text.strip():
            return
        if not text.startswith("/"):
            self._ask(text.strip())
            return
        name, _, argument = text[1:].strip().partition(" ")
        command = self._commands.get(name)
        if command is None:
            known = [f"/{command}" for command in self._commands]
            self._tell(f"There is no command /{printable(name)}; {remedy_for(f'/{name}', known)}")
            return
        command(argument.strip())

    def _ask(self, question: str) -> None:
        answer = Answer()
        try:
            show_answer(self._place, self._conversation.request(question), answer)
        except KeyboardInterrupt:
            self._conversation.answered(answer.text)
            self._tell("Stopped.")
            return
        except LlamavisorError as error:
            complain(error)
            self._tell("/retry asks again.")
            return
        show_end(answer)
        if answer.cut is None:
            self._conversation.answered(answer.text)
        else:
            self._tell("/retry asks again.")

    def _help(self, _: str) -> None:
        self._tell(HELP)

    def _model(self, name: str) -> None:
        try:
            models = asyncio.run(_models(self._place))
        except LlamavisorError as error:
            complain(error)
            return
        if not name:
            self._tell("Models: " + ", ".join(models))
        elif name in models:
            self._conversation.sampling.model = name
            self._tell(f"The next answer comes from {name}.")
        else:
            self._tell(f"There is no model {printable(name)}; {remedy_for(name, models)}")

    def _system(self, text: str) -> None:
        self._conversation.sampling.system = text or None
        self._tell("The instruction is set." if text else "There is no instruction now.")

    def _retry(self, _: str) -> None:
        question = self._conversation.take_back()
        if question is None:
            self._tell("Nothing was asked yet.")
        else:
            self._ask(question)

    def _clear(self, _: str) -> None:
        self._conversation.clear()
        self._tell("Forgotten.")

    def _quit(self, _: str) -> None:
        self._open = False

    def _tell(self, text: str) -> None:
        stdout().print(Text(text, "dim"), soft_wrap=True)


async def _models(place: ServerPlace) -> list[str]:
    """The names that a question can be addressed to; the first is the default."""
    async with Client(place) as client:
        picture = await client.get("/admin/instances")
        listed = (await client.get("/v1/models"))["data"]
    names = [instance["instance"] for instance in picture["instances"]] + [
        printable(str(model["id"])) for model in listed
    ]
    return list(dict.fromkeys(names)) or ["no model"]
