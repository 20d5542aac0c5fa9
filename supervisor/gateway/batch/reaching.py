"""How batch work reaches the engines: where the router says, paid by whom the request names if it may, behind those who wait."""

from __future__ import annotations

import json
from dataclasses import replace

from supervisor.errors import LlamavisorError
from supervisor.gateway.accounting.callers import Caller
from supervisor.gateway.accounting.paying import FIELD, payer, read_project
from supervisor.gateway.batch.turns import Servers
from supervisor.gateway.calls import Call
from supervisor.gateway.exchange import Answer
from supervisor.gateway.gateway import Gateway
from supervisor.gateway.passage import Why, ask
from supervisor.gateway.routing import Router, rerouted


class Reach:
    """See the module, and `asking.Engines`."""

    def __init__(self, gateway: Gateway, router: Router) -> None:
        self._gateway = gateway
        self._router = router

    def servers_of(self, call: Call, caller: Caller) -> Servers:
        """The instances that its model means now. What cannot be answered has servers of its own: it is refused without a wait."""
        route = self._router.route(call.document, caller)
        model = call.model if route is None else route.model
        try:
            places = self._gateway.places_for(call, model)
        except LlamavisorError:
            return Servers((str(model),))
        return Servers(tuple(each.instance.name for each in places), sum(each.slots for each in places))

    async def ask(self, call: Call, caller: Caller, batch_id: str | None, why: Why) -> Answer:
        """See `asking.Engines`."""
        caller = self._payer(call, caller)
        document = {name: value for name, value in call.document.items() if name != FIELD}
        route = self._router.route(document, caller)
        if route is not None:
            document = rerouted(document, route)
        call = replace(
            call,
            body=json.dumps(document).encode(),
            document=document,
            route_reason=None if route is None else route.header,
            batch_id=batch_id,
        )
        return await ask(self._gateway, call, caller, is_batch=True, why=why)

    def _payer(self, call: Call, caller: Caller) -> Caller:
        """Errors as `payer`; UnauthorizedError when the key has ended."""
        named, books = read_project(call.document), self._gateway.bookkeeper
        if named is not None and caller.key_id is not None:
            # A batch keeps whose key it was, not what that may do.
            caller = replace(caller, scopes=books.keyring.find(caller.key_id).scopes)
        return payer(caller, named, books.projects)
