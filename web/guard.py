"""The guard that every request passes, Socket.IO's too: Host, Origin, content type, key; and the headers that make answers safe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiohttp import hdrs, web

from supervisor.config.server_settings import ServerSettings
from supervisor.core import Supervisor
from supervisor.errors import MalformedRequestError, NotAvailableError
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.accounting.keys import Keyring, require_scope
from supervisor.storage.records import Scope
from web.auth import SESSION_COOKIE, KeyCheck, authorization_of
from web.errors import UnsupportedMediaTypeError
from web.keys import CALLER, CLIENT_ADDRESS, REQUEST_ID, STARTED, SUPERVISOR
from web.origins import FetchMetadata, OriginRules, client_address, is_trusted
from web.registry import JSON, MULTIPART, REGISTRY, Policy, Route

DRAINING_RETRY_SECONDS = 5.0
PREFLIGHT_MAX_AGE_SECONDS = 600
SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`: with it a browser sends `Origin: null` with the login form, which is then refused as foreign.
    "Referrer-Policy": "same-origin",
    "Server": "llamavisor",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
EXPOSED_HEADERS = (
    "X-Request-Id, Retry-After, Retry-After-Ms, OpenAI-Processing-Ms, Idempotent-Replayed, X-Llamavisor-Route, X-Llamavisor-Request-Id, "
    "X-Llamavisor-Stream-Id, "
    "X-RateLimit-Limit-Requests, X-RateLimit-Remaining-Requests, X-RateLimit-Reset-Requests, "
    "X-RateLimit-Limit-Tokens, X-RateLimit-Remaining-Tokens, X-RateLimit-Reset-Tokens"
)
UPLOAD_HEADERS = (hdrs.AUTHORIZATION, "X-Requested-With")
_FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
# What a key must be good for; None: any key will do.
_SCOPES: Mapping[Policy, Scope | None] = {
    Policy.ANY: None,
    Policy.READ: Scope.READ,
    Policy.ADMIN: Scope.ADMIN,
    Policy.INFERENCE: Scope.INFERENCE,
}
# No name has one, and no database takes it.
_NUL = "%00"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """The checks that a request must pass before its handler is called."""

    def __init__(self, settings: ServerSettings, keyring: Keyring, secret: str) -> None:
        self.keys = KeyCheck(settings.api_key, keyring, secret)
        self.origins = OriginRules(settings.known_hosts, frozenset(settings.cors_origins))
        self._trusted = settings.trusted_proxies

    def check(self, request: web.Request) -> web.Response | None:
        """Raise what is wrong with `request`; the answer to a preflight, which no handler needs to see; else None."""
        if _NUL in request.raw_path:
            raise MalformedRequestError("The address holds a NUL character.")
        headers = request.headers
        peer = request.remote
        request[CLIENT_ADDRESS] = client_address(peer, headers.getall("X-Forwarded-For", ()), self._trusted)
        host = self.check_host(headers.getall(hdrs.HOST, ()), _own_address(request))
        self.origins.check_origin(host, fetch_metadata(request))
        if request.method == "OPTIONS" and hdrs.ACCESS_CONTROL_REQUEST_METHOD in headers:
            return web.Response(status=204)
        route = request.app[REGISTRY].of(request)
        if route is not None:
            _check_content_type(request, route)
            self._check_policy(request, route)
            _check_upload(request, route)
        return None

    def _check_policy(self, request: web.Request, route: Route) -> None:
        if route.policy is Policy.OPEN:
            return
        caller = self.identify(authorization_of(request.headers), request.cookies.get(SESSION_COOKIE))
        request[CALLER] = caller
        scope = _SCOPES[route.policy]
        if scope is not None:
            require_scope(caller, scope)
        if route.policy is Policy.INFERENCE:
            self.check_takes_work(request.app[SUPERVISOR])

    def check_host(self, hosts: Sequence[str], own_address: str | None) -> str:
        """The one Host header, in lower case. Raises ForbiddenError unless it is known."""
        return self.origins.check_host(hosts, own_address)

    def identify(self, authorization: str | None, cookie: str | None) -> Caller:
        """Who sends the request. UnauthorizedError unless the `Authorization` header or the session cookie lets it in."""
        return self.keys.identify(authorization, cookie)

    def check_takes_work(self, supervisor: Supervisor) -> None:
        """Raise NotAvailableError for requests to engines while the server shuts down."""
        if supervisor.draining:
            message = "The server is shutting down and takes no new work."
            raise NotAvailableError(message, code="shutting_down", retry_after_seconds=DRAINING_RETRY_SECONDS)

    def is_secure(self, request: web.Request) -> bool:
        """Whether the client came by HTTPS, by its own connection or by that of a trusted proxy."""
        if request.secure:
            return True
        forwarded = request.headers.get("X-Forwarded-Proto", "").lower()
        return forwarded == "https" and is_trusted(request.remote or "", self._trusted)

    def cors_headers(self, origin: str | None) -> dict[str, str]:
        """The CORS headers for a page of `origin`; none unless the configuration lets it."""
        if origin is None or not self.origins.is_allowed_cross_origin(origin):
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
            "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID, X-Request-Id, Idempotency-Key, X-Llamavisor-Resume",
            "Access-Control-Expose-Headers": EXPOSED_HEADERS,
            "Access-Control-Max-Age": str(PREFLIGHT_MAX_AGE_SECONDS),
            "Vary": "Origin",
        }

    async def on_prepare(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Put the headers on that every answer has; called just before they are sent."""
        if not isinstance(request, web.Request):
            return
        request[STARTED] = True
        response.headers.update(SECURITY_HEADERS)
        response.headers.setdefault("X-Request-Id", request.get(REQUEST_ID, ""))
        response.headers.update(self.cors_headers(request.headers.get(hdrs.ORIGIN)))


def fetch_metadata(request: web.BaseRequest) -> FetchMetadata:
    """What the browser says of `request`."""
    headers = request.headers
    navigates = (
        request.method in {"GET", "HEAD"}
        and headers.get("Sec-Fetch-Mode") == "navigate"
        and headers.get("Sec-Fetch-Dest") == "document"
    )
    return FetchMetadata(headers.get(hdrs.ORIGIN), headers.get("Sec-Fetch-Site"), navigates)


def _own_address(request: web.BaseRequest) -> str | None:
    name = request.get_extra_info("sockname")
    return str(name[0]) if isinstance(name, tuple) else None


def _check_content_type(request: web.Request, route: Route) -> None:
    if request.method in _SAFE_METHODS:
        return
    given = request.headers.get(hdrs.CONTENT_TYPE)
    wanted = route.body.content_type if route.body is not None else JSON
    if not request.body_exists and request.content_type not in _FORM_TYPES:
        return
    # Forms of other sites can send everything but JSON without asking first.
    if given is None or request.content_type != wanted:
        raise UnsupportedMediaTypeError(f"The Content-Type must be {wanted}.", param="Content-Type")
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":
        raise UnsupportedMediaTypeError("Compressed bodies are not taken.", param="Content-Encoding")


def _check_upload(request: web.Request, route: Route) -> None:
    # Multipart is what forms send; but no form sends a header of one's own choice. OpenAI's SDKs send the first of these on every request.
    is_upload = route.body is not None and route.body.content_type == MULTIPART
    if is_upload and not any(name in request.headers for name in UPLOAD_HEADERS):
        raise MalformedRequestError(
            "An upload needs a header that no form of another site can send.",
            code="upload_header_missing",
            param=UPLOAD_HEADERS[0],
            remedy=f"Send `{UPLOAD_HEADERS[0]}: Bearer KEY` (any key where none is configured) or `{UPLOAD_HEADERS[1]}`.",
        )


GUARD = web.AppKey("guard", Guard)
