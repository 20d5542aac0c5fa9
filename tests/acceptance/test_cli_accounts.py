"""Projects, keys, budgets, usage and requests from the command line, against a real `llamavisor serve` with the demo model."""

import http.client
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest

from supervisor.cli import main
from supervisor.cli.formatting import money
from tests.fixtures.serve_process import DEMO, GENEROUS_SECONDS, PROGRAM, ServeProcess, clean_environment, wait_until

pytestmark = pytest.mark.timeout(180)
PRICES = {"demo": {"input": "1000", "output": "2000"}}
"""A prompt token costs 1,000 micro-units, a completion token 2,000."""
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """A server with prices; the tests leave each other's projects alone."""
    config = {**DEMO, "accounting": {"prices": PRICES}, "storage": {"write_seconds": 0.01}}
    server = ServeProcess(tmp_path_factory.mktemp("serve"), config)
    try:
        server.wait_ready()
        yield server
    finally:
        server.close()


class Shell:
    """Runs commands against a server, in this process: a program that starts each time takes its time."""

    def __init__(
        self, serve: ServeProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.serve = serve
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def cli(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """One command in a clean environment, with nothing to read."""
        clean = clean_environment(self.serve.home, LLAMAVISOR_DATA_DIR=str(self.serve.data), **environment)
        with self._monkeypatch.context() as patch:
            for name in os.environ.keys() - clean.keys():
                patch.delenv(name)
            for name, value in clean.items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdin", io.StringIO())
            patch.chdir(self.serve.home)
            code = main(list(arguments))
        told = self._capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, told.out, told.err)

    def json(self, *arguments: str) -> Any:
        """The JSON that a command prints; it must succeed."""
        done = self.cli(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def shell(serve: ServeProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """For the commands of one test."""
    return Shell(serve, monkeypatch, capsys)


def made(shell: Shell, project: str, *options: str) -> Any:
    """A new project, and a key of it."""
    shell.json("projects", "add", project)
    return shell.json("keys", "create", "--project", project, *options)


def test_a_new_project_is_listed_and_a_second_of_its_name_refused(shell: Shell) -> None:
    assert shell.serve.cli("projects", "add", "shop", "--concurrency", "3").stdout == "The project shop is there.\n"
    listed = {each["name"]: each for each in shell.json("projects", "list")["projects"]}
    assert listed.keys() >= {"default", "shop"}
    assert listed["shop"]["limits"]["concurrency"] == 3
    assert "3 at a time" in shell.cli("projects", "list").stdout
    again = shell.cli("projects", "add", "shop")
    assert (again.returncode, "shop" in again.stderr) == (1, True)


def test_a_key_is_printed_once_alone_and_works_until_it_is_revoked(shell: Shell) -> None:
    shell.json("projects", "add", "site")
    done = shell.cli("keys", "create", "--project", "site", "--label", "<b>web</b>", "--scope", "read", "--days", "2")
    key = done.stdout.strip()
    assert key.startswith("lv-")
    assert "only time" in done.stderr
    assert "who has no key" in done.stderr
    (known,) = shell.json("keys", "list", "--project", "site")["keys"]
    assert (known["label"], known["scopes"], known["revoked_at"]) == ("<b>web</b>", ["read"], None)
    assert key not in json.dumps(known)
    table = shell.cli("keys", "list").stdout
    assert "<b>web</b>" in table
    assert "valid" in table
    assert shell.cli("projects", "list", LLAMAVISOR_API_KEY=key).returncode == 0
    refused = shell.cli("projects", "add", "other", LLAMAVISOR_API_KEY=key)
    assert refused.returncode == 1
    assert shell.cli("keys", "revoke", known["id"]).stdout == f"The key {known['id']} is revoked.\n"
    assert "revoked" in shell.cli("keys", "list", "--project", "site").stdout
    after = shell.cli("projects", "list", LLAMAVISOR_API_KEY=key)
    assert (after.returncode, "LLAMAVISOR_API_KEY" in after.stderr) == (1, True)


def test_a_key_and_a_project_are_changed_in_what_is_named(shell: Shell) -> None:
    key = made(shell, "works", "--label", "web", "--requests-per-minute", "60", "--days", "1")
    change = ("keys", "change", key["id"])
    told = shell.cli(*change, "--label", "desk", "--concurrency", "2", "--no-expiry").stdout
    assert told == (
        f"The key {key['id']} is changed. Label: desk. Expires: never. Limits: 60 requests/min, 2 at a time.\n"
    )
    changed = shell.json(*change, "--requests-per-minute", "default", "--days", "2")
    assert (changed["label"], changed["limits"]["requests_per_minute"], changed["limits"]["concurrency"]) == (
        "desk",
        None,
        2,
    )
    assert changed["expires_at"] > key["expires_at"]
    told = shell.cli("projects", "change", "works", "--tokens-per-minute", "9000").stdout
    assert told == "The project works is changed. Limits: 9,000 tokens/min.\n"
    for arguments, words in (
        (change, f"llamavisor keys change {key['id']} --days 90"),
        (("projects", "change", "works"), "llamavisor projects change works --concurrency 4"),
        ((*change, "--days", "2", "--no-expiry"), "--no-expiry"),
        ((*change, "--concurrency", "0"), "--concurrency as a whole number from 1 on, or `default`"),
    ):
        refused = shell.cli(*arguments)
        assert (refused.returncode, words in refused.stderr) == (2, True), refused.stderr


def test_a_project_is_removed_once_no_key_of_it_is_valid(shell: Shell) -> None:
    key = made(shell, "past")
    refused = shell.cli("projects", "remove", "past")
    assert (refused.returncode, "1 valid key" in refused.stderr, "keys revoke" in refused.stderr) == (1, True, True)
    shell.json("keys", "revoke", key["id"])
    refused = shell.cli("keys", "change", key["id"], "--no-expiry", "--concurrency", "3")
    assert (refused.returncode, "revoked" in refused.stderr) == (1, True)
    assert shell.cli("projects", "remove", "past").stdout == "The project past is removed.\n"
    assert "past" not in {each["name"] for each in shell.json("projects", "list")["projects"]}
    assert shell.cli("projects", "remove", "past").returncode == 1


def test_budgets_are_set_shown_and_removed(shell: Shell) -> None:
    key = made(shell, "books")
    told = shell.cli("budgets", "set", "books", "--period", "month", "--money", "20.5").stdout
    assert told == "books may use 20.50 USD a month; 20.50 is left.\n"
    shell.json("budgets", "set", "books", "--period", "day", "--tokens", "1000", "--key", key["id"])
    found = [each for each in shell.json("budgets", "list")["budgets"] if each["project"] == "books"]
    assert {(each["key_id"], each["unit"], each["amount"]) for each in found} == {
        (None, "micros", 20_500_000),
        (key["id"], "tokens", 1_000),
    }
    table = shell.cli("budgets", "list").stdout
    assert "20.50" in table
    assert "USD" in table
    removal = ("budgets", "remove", "books", "--period", "month", "--unit", "money")
    assert shell.cli(*removal).stdout == "The budget is removed.\n"
    assert shell.cli(*removal).stdout == "There was no such budget.\n"


@pytest.mark.parametrize("amount", [(), ("--money", "1", "--tokens", "1"), ("--money", "plenty")])
def test_a_budget_needs_one_sensible_amount(shell: Shell, amount: tuple[str, ...]) -> None:
    done = shell.cli("budgets", "set", "default", "--period", "day", *amount)
    assert (done.returncode, "money" in done.stderr) == (2, True)


def test_what_was_used_is_told_to_the_micro_unit(shell: Shell) -> None:
    key = made(shell, "meter")
    shell.json("budgets", "set", "meter", "--period", "month", "--money", "5")
    before = shell.cli("usage", "--project", "meter").stdout
    assert "nothing was used" in before
    shell.json("budgets", "set", "meter", "--period", "day", "--tokens", "1000")
    chat = shell.cli("chat", "--json", "--max-tokens", "4", "Hello", LLAMAVISOR_API_KEY=key["key"])
    assert chat.returncode == 0, chat.stderr

    def booked() -> Any:
        return shell.json("requests", "list", "--project", "meter", "--outcome", "ok")["requests"]

    (receipt,) = wait_until(booked, "the request in the books")
    used, cost = receipt["usage"], receipt["cost"]["micros"]
    assert cost == used["prompt_tokens"] * 1_000 + used["completion_tokens"] * 2_000 > 0
    usage = shell.json("usage", "--project", "meter", "--period", "day")
    assert (usage["total_tokens"], usage["total_cost_micros"]) == (used["total_tokens"], cost)
    told = shell.cli("usage", "--project", "meter").stdout
    assert f"{used['total_tokens']:,}" in told
    cost_text = f"{money(cost)} USD"
    assert told.count(cost_text) == 2
    # The tightest first: of a thousand tokens a larger share is gone than of five million micro-units.
    first, second = (line for line in told.splitlines() if line.startswith("Left"))
    assert first == f"Left of the budget a day: {1_000 - used['total_tokens']:,} of 1,000 tokens."
    assert second == f"Left of the budget a month: {money(5_000_000 - cost)} of 5.00 USD."
    assert cost_text in next(line for line in shell.cli("projects", "list").stdout.splitlines() if "meter" in line)
    table = shell.cli("requests", "list", "--project", "meter", "-n", "5").stdout
    assert receipt["id"] in table
    assert " ok " in table
    assert cost_text in table
    assert shell.cli("requests", "list", "--project", "nobody").stdout == "There is no such request.\n"


def test_the_receipt_of_a_request_is_shown_by_either_of_its_ids(shell: Shell) -> None:
    begun(shell.serve, "my-own-id", max_tokens=4).read()
    receipt = wait_until(lambda: settled(shell, "my-own-id"), "the receipt")
    told = shell.cli("requests", "show", receipt["id"]).stdout
    assert "my-own-id" in told
    assert f"{receipt['usage']['completion_tokens']} of the answer; told by: engine" in told
    unknown = shell.cli("requests", "show", "req_nobody")
    assert (unknown.returncode, "req_nobody" in unknown.stderr) == (1, True)


def test_a_running_request_is_seen_and_cancelled(shell: Shell) -> None:
    assert shell.cli("requests", "running").stdout == "No request is on its way.\n"
    with begun(shell.serve, "long", max_tokens=100_000) as answer:
        (running,) = shell.json("requests", "running")["requests"]
        assert (running["client_request_id"], running["stage"]) == ("long", "streaming")
        assert running["id"] in shell.cli("requests", "running").stdout
        assert shell.cli("requests", "cancel", running["id"]).stdout == f"The request {running['id']} is cancelled.\n"
        with pytest.raises(http.client.IncompleteRead) as end:
            answer.read()
    assert b'"cancelled"' in end.value.partial
    receipt = wait_until(lambda: settled(shell, "long"), "the receipt")
    assert (receipt["outcome"], receipt["error_code"]) == ("cancelled", "cancelled")
    again = shell.cli("requests", "cancel", running["id"])
    assert (again.returncode, running["id"] in again.stderr) == (1, True)


def begun(serve: ServeProcess, identity: str, *, max_tokens: int) -> Any:
    """A stream of which the first bytes have come; the model's end of text is not heeded."""
    document = {"messages": HELLO, "stream": True, "max_tokens": max_tokens, "ignore_eos": True}
    headers = {"Content-Type": "application/json", "X-Request-Id": identity}
    asked = Request(f"{serve.wait_serving()}/v1/chat/completions", json.dumps(document).encode(), headers)
    answer = urlopen(asked, timeout=GENEROUS_SECONDS)
    assert answer.readline()
    return answer


def settled(shell: Shell, identity: str) -> Any:
    """The receipt of that request, once it has ended."""
    receipt = shell.json("requests", "show", identity)
    return receipt if receipt["outcome"] is not None else None


def test_a_shell_completes_projects_and_keys(serve: ServeProcess, shell: Shell) -> None:
    key = made(shell, "completing")
    environment = clean_environment(
        serve.home, LLAMAVISOR_DATA_DIR=str(serve.data), _LLAMAVISOR_COMPLETE="complete_bash"
    )
    assert offered(serve, environment, "llamavisor usage --project compl") == ["completing"]
    assert offered(serve, environment, f"llamavisor keys revoke {key['id'][:6]}") == [key["id"]]
    assert offered(serve, environment, f"llamavisor keys change {key['id'][:6]}") == [key["id"]]
    nowhere = {**environment, "LLAMAVISOR_URL": "http://127.0.0.1:1"}
    assert offered(serve, nowhere, "llamavisor usage --project compl") == []


def offered(serve: ServeProcess, environment: dict[str, str], words: str) -> list[str]:
    """What a shell is offered for the last of `words`."""
    asked = {**environment, "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    done = subprocess.run(PROGRAM, env=asked, cwd=serve.home, capture_output=True, text=True, timeout=GENEROUS_SECONDS)
    return done.stdout.split()
