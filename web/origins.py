"""Where a request may come from: the Host allowlist (DNS rebinding) and the Origin checks (CSRF, cross-site WebSocket). Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from supervisor.errors import ForbiddenError, MalformedRequestError

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::(?P<port>[0-9]{1,5}))?\Z")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_OWN_SITES = frozenset({"same-origin", "none"})


@dataclass(frozen=True, slots=True)
class FetchMetadata:
    """What a browser says of a request; all None from other clients. `navigates`: it loads a page into a window of its own."""

    origin: str | None
    site: str | None
    navigates: bool


@dataclass(frozen=True, slots=True)
class OriginRules:
    """Whom this server is addressed as, and which other web pages may call it.

    `known_hosts`: lower case, without ports. `cors_origins`: `scheme://host[:port]`, or `*`.
    """

    known_hosts: frozenset[str]
    cors_origins: frozenset[str]

    def check_host(self, hosts: Sequence[str], own_address: str | None) -> str:
        """The one Host header, in lower case. Raises ForbiddenError unless it is known.

        An IP literal of the connection's own local end is known too: a rebinding page is reached by its name, never by our address.
        """
        if len(hosts) != 1 or not (match := _HOST.match(hosts[0])):
            raise MalformedRequestError(
                "The request needs exactly one well-formed Host header.", code="invalid_host", param="Host"
            )
        name = match["name"].lower()
        if name in self.known_hosts or (own_address is not None and name == bracketed(own_address)):
            return hosts[0].lower()
        remedy = "Add it to `server.allowed_hosts` if this server may be called so."
        raise ForbiddenError(
            f"The Host {name!r} is not one of this server's names.", code="foreign_host", param="Host", remedy=remedy
        )

    def is_allowed_cross_origin(self, origin: str) -> bool:
        """Whether the configuration lets pages of `origin` call this server."""
        return origin in self.cors_origins or "*" in self.cors_origins

    def check_origin(self, host: str, fetch: FetchMetadata) -> None:
        """Raise ForbiddenError when a page of another origin sent this, and the configuration does not let it."""
        if fetch.origin is not None:
            if is_same_origin(fetch.origin, host) or self.is_allowed_cross_origin(fetch.origin):
                return
            raise _foreign(f"Pages of {fetch.origin[:200]!r} may not call this server.")
        if fetch.site is not None and fetch.site not in _OWN_SITES and not fetch.navigates:
            raise _foreign("Pages of other sites may not call this server.")


def is_same_origin(origin: str, host: str) -> bool:
    """Whether `origin` is the origin that the Host header `host` names; the scheme is left out, a TLS proxy may stand between."""
    try:
        parts = urlsplit(origin)
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        asked = urlsplit(f"{parts.scheme}://{host}")
        return parts.hostname == asked.hostname and port == (asked.port or _DEFAULT_PORTS[parts.scheme])
    except (ValueError, KeyError):
        return False


def bracketed(address: str) -> str:
    """An IP address as it stands in a Host header; anything else unchanged."""
    plain = address.partition("%")[0]
    try:
        parsed = ipaddress.ip_address(plain)
    except ValueError:
        return address
    return f"[{parsed}]" if parsed.version == 6 else str(parsed)


def client_address(peer: str | None, forwarded_for: Sequence[str], trusted: Sequence[Any]) -> str:
    """The client's address: the peer's, or, where the peer is a trusted proxy, the last in X-Forwarded-For that is not one."""
    address = peer or "unknown"
    hops = [hop.strip() for value in forwarded_for for hop in value.split(",")]
    while hops and is_trusted(address, trusted):
        address = hops.pop()
    return address


def is_trusted(address: str, trusted: Sequence[Any]) -> bool:
    """Whether `address` lies in one of the `trusted` networks (of `ipaddress`)."""
    if not trusted:
        return False
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in trusted)


def _foreign(message: str) -> ForbiddenError:
    remedy = "Name the origin in `server.cors_origins` to let it."
    return ForbiddenError(message, code="foreign_origin", param="Origin", remedy=remedy)
