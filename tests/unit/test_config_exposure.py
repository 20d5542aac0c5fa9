"""A server that others can reach needs a key, and TLS or an explicit word; and which Host names it answers to."""

from __future__ import annotations

import pytest

from supervisor.config import ServerSettings, check_exposure

TLS = {"certificate": "/c", "key": "/k"}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST"])
def test_loopback_needs_nothing(host: str) -> None:
    assert check_exposure(ServerSettings(host=host)) is None


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "::ffff:127.0.0.1", "example.org", "localhost.example.org"]
)
@pytest.mark.parametrize(
    ("extra", "keys"),
    [
        ({}, ["server.api_key", "server.tls"]),
        ({"insecure": True}, ["server.api_key"]),
        ({"tls": TLS}, ["server.api_key"]),
        ({"api_key": "k"}, ["server.tls"]),
        ({"api_key": "k", "insecure": True}, []),
        ({"api_key": "k", "tls": TLS}, []),
    ],
)
def test_other_addresses_need_a_key_and_tls_or_insecure(host: str, extra: dict[str, object], keys: list[str]) -> None:
    error = check_exposure(ServerSettings.model_validate({"host": host, **extra}))
    assert [problem.key for problem in error.problems] == keys if error else not keys
    if error:
        assert error.code == "exposed_bind"
        assert host in str(error)
        assert all("127.0.0.1" in problem.remedy for problem in error.problems)


@pytest.mark.parametrize(
    ("host", "added"),
    [
        ("127.0.0.1", set()),
        ("0.0.0.0", set()),
        ("::", set()),
        ("::1", set()),
        ("10.0.0.1", {"10.0.0.1"}),
        ("fd00::1", {"[fd00::1]"}),
        ("LLM.example", {"llm.example"}),
    ],
)
def test_known_hosts(host: str, added: set[str]) -> None:
    always = {"localhost", "127.0.0.1", "[::1]", "proxy.example"}
    assert ServerSettings(host=host, allowed_hosts=("Proxy.example",)).known_hosts == always | added


def test_good_lists_are_taken() -> None:
    server = ServerSettings.model_validate(
        {
            "allowed_hosts": ["a.example", "[fd00::1]"],
            "cors_origins": ["https://a.example", "http://localhost:5173"],
            "trusted_proxies": ["10.0.0.0/8", "::1", "192.168.1.4"],
        }
    )
    assert [str(network) for network in server.trusted_proxies] == ["10.0.0.0/8", "::1/128", "192.168.1.4/32"]
    ServerSettings.model_validate({"api_key": "k", "cors_origins": ["*"]})
