"""`llamavisor chat`: one question, or a conversation at the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from supervisor.cli.options import DataDirOption, JsonOption, UrlOption, ending
from supervisor.cli.outcome import ExitCode, UsageProblemError

if TYPE_CHECKING:
    from supervisor.cli.conversation import Conversation
    from supervisor.cli.place import ServerPlace

CHAT_ENDING = ending(
    "llamavisor chat  # a conversation; /help lists its commands",
    'llamavisor chat "What is the capital of France?"  # one answer',
    'git diff | llamavisor chat "Explain this change"  # the question, then what is piped in',
    'llamavisor chat --json "Hello" | jq -r .content',
)
PIPED_CHARACTERS_MAX = 4_000_000


def chat(
    question: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUESTION", help="Ask this once; left out: a conversation, or what is piped in."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME", help="Model or instance; left out: the default one.")
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", "-s", metavar="TEXT", help="Instruction to the model.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="X", min=0, max=2, help="Sampling temperature; left out: the server's.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Longest answer; left out: the server's limit.")
    ] = None,
    json_output: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Chat with a model: tokens appear as they come, Ctrl-C stops an answer, Ctrl-D leaves.

    An answer that was cut off in the middle is marked so, and ends a single question with exit code 1.
    """
    from supervisor.cli.conversation import Conversation, Sampling
    from supervisor.cli.place import find_server

    text = _asked(question)
    if text is None and json_output:
        raise UsageProblemError("--json needs a question.", remedy="Give it as an argument, or pipe it in.")
    conversation = Conversation(Sampling(model, system, temperature, max_tokens))
    place = find_server(url, data_dir)
    if text is not None:
        raise typer.Exit(_ask_once(place, conversation, text, as_json=json_output))
    from supervisor.cli.chat_session import ChatSession

    ChatSession(place, conversation).run()


def _asked(question: list[str] | None) -> str | None:
    """The question of the arguments and what is piped in; None when a person sits there and has asked nothing yet."""
    parts = [" ".join(question)] if question else []
    if not sys.stdin.isatty():
        piped = sys.stdin.read(PIPED_CHARACTERS_MAX + 1)
        if len(piped) > PIPED_CHARACTERS_MAX:
            raise UsageProblemError(f"More than {PIPED_CHARACTERS_MAX} characters are piped in.", remedy="Send less.")
        if piped.strip():
            parts.append(piped)
        if not parts:
            raise UsageProblemError("There is no question.", remedy="Give it as an argument, or pipe it in.")
    return "\n\n".join(parts) or None


def _ask_once(place: ServerPlace, conversation: Conversation, question: str, *, as_json: bool) -> int:
    from supervisor.cli.answering import Answer
    from supervisor.cli.output import print_json, stdout
    from supervisor.cli.showing import show_answer, show_end

    answer = Answer()
    show_answer(place, conversation.request(question), answer, silent=as_json)
    if as_json:
        print_json(answer.to_wire())
    if answer.cut is not None or (stdout().is_terminal and not as_json):
        show_end(answer)
    return ExitCode.FAILED if answer.cut is not None else ExitCode.OK
