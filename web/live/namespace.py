"""The Socket.IO events of `contracts.md` §1: parse, call the supervisor, answer."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import socketio
from aiohttp import hdrs, web
from socketio.exceptions import ConnectionRefusedError as RefusedError

from supervisor.core import Supervisor
from supervisor.errors import ForbiddenError, LlamavisorError, MalformedRequestError, UnauthorizedError
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.accounting.keys import require_scope
from supervisor.process.instance import Instance
from supervisor.storage.records import Scope
from web import views
from web.auth import SESSION_COOKIE, KeyCheck
from web.live.fanout import EVERYTHING, Fanout

logger = logging.getLogger(__name__)

LOG_LINES = 200
# What only a key with the scope `admin` may send.
CHANGES = frozenset({"startModel", "stopModel", "restartServer", "startLlamaServer"})
Payload = Mapping[str, Any]
EventHandler = Callable[[str, Payload], Awaitable[dict[str, Any]]]


class StatusNamespace(socketio.AsyncNamespace):  # type: ignore[misc]
    """Namespace `/`. Every event is acknowledged with `{success, data?, error?, timestamp}`; `requestLlamaStatus` with the message itself."""

    def __init__(self, supervisor: Supervisor, fanout: Fanout, keys: KeyCheck, queued_messages: int) -> None:
        super().__init__("/")
        self._supervisor = supervisor
        self._fanout = fanout
        self._keys = keys
        self._queued_messages = queued_messages
        self._callers: dict[str, Caller] = {}
        self._handlers: dict[str, EventHandler] = {
            "requestModels": self._models,
            "requestMetrics": self._metrics,
            "requestLogs": self._logs,
            "startModel": self._start_model,
            "stopModel": self._stop_model,
            "restartServer": self._restart,
            "startLlamaServer": self._start,
            "subscribe": self._subscribe,
        }

    @property
    def events(self) -> list[str]:
        """The names of the events that a client may send."""
        return ["requestLlamaStatus", *self._handlers]

    async def trigger_event(self, event: str, *arguments: Any) -> Any:
        """Dispatch one event; called by python-socketio."""
        if event in ("connect", "disconnect"):
            return await super().trigger_event(event, *arguments)
        sid, *values = arguments
        client = self._fanout.get(sid)
        if client is None or client.queued_messages > self._queued_messages:
            # It asks and asks and does not read the answers.
            return await client.drop() if client is not None else None
        if not self._is_valid(self._callers[sid]):
            return await client.drop()
        return await self._answer(sid, event, values)

    async def on_connect(self, sid: str, environ: dict[str, Any], auth: object = None) -> None:
        """Let the client in by header, cookie or `auth: {token}`; its first `llamaStatus` follows by itself."""
        request: web.Request = environ["aiohttp.request"]
        token = auth.get("token") if isinstance(auth, dict) else None
        authorization = f"Bearer {token}" if isinstance(token, str) else request.headers.get(hdrs.AUTHORIZATION)
        try:
            caller = self._keys.identify(authorization, request.cookies.get(SESSION_COOKIE))
            require_scope(caller, Scope.READ)
        except (UnauthorizedError, ForbiddenError) as error:
            raise RefusedError(str(error), {"code": error.code}) from None
        self._callers[sid] = caller

    async def on_disconnect(self, sid: str, reason: str) -> None:
        """Forget the client."""
        self._fanout.leave(sid)
        self._callers.pop(sid, None)

    async def drop_ended(self) -> None:
        """End the connections whose key is not valid any more; what they would come back with is refused."""
        for sid in [sid for sid, caller in self._callers.items() if not self._is_valid(caller)]:
            client = self._fanout.get(sid)
            if client is not None:
                await client.drop()

    def _is_valid(self, caller: Caller) -> bool:
        try:
            self._keys.check(caller)
        except UnauthorizedError:
            return False
        return True

    async def _answer(self, sid: str, event: str, values: list[Any]) -> dict[str, Any]:
        try:
            payload = _payload(event, values)
            if event == "requestLlamaStatus":
                return await self._status(sid, payload)
            handler = self._handlers.get(event)
            if handler is None:
                raise MalformedRequestError(f"There is no event {event!r}.", param="event", code="unknown_event")
            if event in CHANGES:
                require_scope(self._callers[sid], Scope.ADMIN)
            return self._reply({"success": True, "data": await handler(sid, payload)})
        except LlamavisorError as error:
            return self._reply({"success": False, "error": str(error), "code": error.code})
        except Exception:
            logger.exception("Unexpected failure of the Socket.IO event %r", event)
            return self._reply(
                {"success": False, "error": "An unexpected failure; see the server's log.", "code": "internal_error"}
            )

    def _reply(self, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "timestamp": views.now_ms(self._supervisor)}

    async def _status(self, sid: str, payload: Payload) -> dict[str, Any]:
        message = views.status_message(self._supervisor, self._instance(payload))
        await self.emit("llamaStatus", message, to=sid)
        return message

    async def _models(self, sid: str, payload: Payload) -> Any:
        return await self._send(sid, "models", views.models_data(self._supervisor))

    async def _metrics(self, sid: str, payload: Payload) -> Any:
        chosen = self._instance(payload) if payload.get("instance") is not None else None
        return await self._send(sid, "metrics", views.metrics_data(self._supervisor, chosen))

    async def _logs(self, sid: str, payload: Payload) -> Any:
        instance = self._instance(payload)
        lines = [views.log_entry(line, instance.name) for line in instance.output.tail(LOG_LINES)]
        return await self._send(sid, "logs", lines)

    async def _start_model(self, sid: str, payload: Payload) -> Any:
        name = self._model_instance(payload).name
        return (await self._supervisor.fleet.start(name)).to_wire()

    async def _stop_model(self, sid: str, payload: Payload) -> Any:
        name = self._model_instance(payload).name
        return (await self._supervisor.fleet.stop(name)).to_wire()

    async def _restart(self, sid: str, payload: Payload) -> Any:
        return (await self._supervisor.fleet.restart(self._instance(payload).name)).to_wire()

    async def _start(self, sid: str, payload: Payload) -> Any:
        return (await self._supervisor.fleet.start(self._instance(payload).name)).to_wire()

    async def _subscribe(self, sid: str, payload: Payload) -> Any:
        wanted = _text(payload, "instance")
        everything = wanted == EVERYTHING
        chosen = self._supervisor.fleet.instances() if everything else [self._supervisor.fleet.get(wanted)]
        client = self._fanout.get(sid)
        if client is not None:
            self._fanout.subscribe(client, wanted)
        for instance in chosen:
            await self.emit("llamaStatus", views.status_message(self._supervisor, instance), to=sid)
        return {"instances": [instance.name for instance in chosen]}

    async def _send(self, sid: str, kind: str, data: Any) -> Any:
        message = {"type": kind, "data": data, "timestamp": views.now_ms(self._supervisor)}
        await self.emit(kind, message, to=sid)
        return data

    def _instance(self, payload: Payload) -> Instance:
        if payload.get("instance") is None:
            return self._supervisor.fleet.default
        return self._supervisor.fleet.get(_text(payload, "instance"))

    def _model_instance(self, payload: Payload) -> Instance:
        return self._supervisor.gateway.resolve(_text(payload, "modelId"))[0]


def _payload(event: str, values: list[Any]) -> Payload:
    """The one argument of an event: an object, or nothing."""
    value = values[0] if values else None
    if value is None:
        return {}
    if not isinstance(value, dict) or len(values) > 1:
        raise MalformedRequestError(f"{event} takes one object, or nothing.", param="payload")
    return value


def _text(payload: Payload, name: str) -> str:
    value = payload.get(name)
    if not isinstance(value, str) or not value:
        raise MalformedRequestError(f"`{name}` must be given, as text.", param=name)
    return value
