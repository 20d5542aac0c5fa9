"""Settings of the web server, and the rule for a server that others can reach."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, IPvAnyNetwork, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from supervisor.config.fields import (
    BrokenRule,
    Bytes,
    Flag,
    GraceSeconds,
    ListenPort,
    Seconds,
    StrictModel,
    Text,
    refuse,
)
from supervisor.config.problems import ConfigError, Problem

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}\Z")
_HEADER_SAFE = r"^[\x21-\x7e]{1,512}$"


def _text_only(value: object) -> object:
    if isinstance(value, str):
        return value
    raise PydanticCustomError("string_type", "must be text")


Network = Annotated[IPvAnyNetwork, BeforeValidator(_text_only)]


class TlsSettings(StrictModel):
    """A certificate for HTTPS."""

    certificate: Path = Field(description="PEM file with the certificate and its chain.")
    key: Path = Field(description="PEM file with the private key.")


class ServerSettings(StrictModel):
    """Where the server listens, who may come in, and its limits."""

    host: Text = Field("127.0.0.1", description="Address to listen on: a name or an IP address.")
    port: ListenPort = Field(3000, description="Port to listen on; 0 takes any free one.")
    api_key: Annotated[SecretStr, Field(min_length=1, max_length=512)] | None = Field(
        None, description="Key that clients must send as `Authorization: Bearer`; left out, a loopback server is open."
    )
    allowed_hosts: tuple[Text, ...] = Field(
        (), description="More host names that requests may be addressed to, beside localhost and `host`."
    )
    cors_origins: tuple[Text, ...] = Field((), description="Origins of other web pages that may call this server.")
    trusted_proxies: tuple[Network, ...] = Field(
        (), description="Addresses or networks of reverse proxies whose forwarded headers are believed."
    )
    tls: TlsSettings | None = Field(None, description="Certificate and key; left out, the server speaks plain HTTP.")
    insecure: Flag = Field(False, description="Allow plain HTTP on an address that others can reach.")
    max_body_bytes: Bytes = Field(32 * 1024**2, description="Largest request body.")
    head_deadline_seconds: Seconds = Field(10.0, description="Time within which a request's head must be complete.")
    body_deadline_seconds: Seconds = Field(60.0, description="Time within which a request's body must be complete.")
    shutdown_grace_seconds: GraceSeconds = Field(30.0, description="Time that running streams get at shutdown.")
    upstream_idle_seconds: Seconds = Field(
        300.0, description="Longest silence of an engine in the middle of an answer before it counts as lost."
    )
    slow_reader_seconds: Seconds = Field(
        60.0, description="Time that a client may leave sent data unread before it is disconnected."
    )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach `host`."""
        return is_loopback(self.host)

    @property
    def known_hosts(self) -> frozenset[str]:
        """Host names, in lower case and without a port, that a request's Host may hold; a wildcard address is none."""
        names = set(LOOPBACK_NAMES) | {name.lower() for name in self.allowed_hosts}
        address = _address(self.host)
        if address is None:
            names.add(self.host.lower())
        elif not address.is_unspecified:
            names.add(f"[{address}]" if address.version == 6 else str(address))
        return frozenset(names)

    @model_validator(mode="after")
    def _well_formed(self) -> Self:
        broken: list[BrokenRule] = []
        if _address(self.host) is None and not _HOST.match(self.host):
            broken.append(("host", "`host` is no host name or IP address", "write it without scheme, port or brackets"))
        if self.api_key is not None and not re.match(_HEADER_SAFE, self.api_key.get_secret_value()):
            broken.append(("api_key", "`api_key` cannot be sent in a header", "use printable ASCII without spaces"))
        broken += [rule for name in self.allowed_hosts if (rule := _bad_allowed_host(name))]
        broken += [rule for origin in self.cors_origins if (rule := _bad_origin(origin, self.api_key is not None))]
        refuse(broken)
        return self


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an IP address) is reachable from this machine only."""
    address = _address(host)
    if address is None:
        return host.lower() == "localhost"
    return address.is_loopback


def check_exposure(server: ServerSettings) -> ConfigError | None:
    """Refuse a server that others can reach without a key, or in plain HTTP that nobody asked for.

    Returns the error (code `exposed_bind`) with every remedy, or None when the server may open its port.
    """
    if server.is_loopback:
        return None
    problems: list[Problem] = []
    where = f"the server would listen on `{server.host}`, which others can reach,"
    if server.api_key is None:
        remedy = "set `server.api_key` (LLAMAVISOR_SERVER__API_KEY), or listen on 127.0.0.1"
        problems.append(Problem("server.api_key", f"{where} without a key", remedy))
    if server.tls is None and not server.insecure:
        remedy = "set `server.tls`, or accept it with `server.insecure` (--insecure), or listen on 127.0.0.1"
        problems.append(Problem("server.tls", f"{where} in plain HTTP", remedy))
    return ConfigError("exposed_bind", problems) if problems else None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _bad_allowed_host(name: str) -> BrokenRule | None:
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    if _HOST.match(name) or (bare != name and _address(bare) is not None):
        return None
    return ("allowed_hosts", "`allowed_hosts` holds what is no host name", "write names without scheme or port")


def _bad_origin(origin: str, has_key: bool) -> BrokenRule | None:
    if origin == "*":
        message = "`cors_origins` lets every web page call a server without a key"
        return None if has_key else ("cors_origins", message, "name the origins, or set `server.api_key`")
    try:
        parts = urlsplit(origin)
        well_formed = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well_formed = False
    if well_formed and origin == f"{parts.scheme}://{parts.netloc}" and "@" not in parts.netloc:
        return None
    return ("cors_origins", "`cors_origins` holds what is no origin", "write `https://name` or `https://name:port`")
