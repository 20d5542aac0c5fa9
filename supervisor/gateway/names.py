"""What the names in the configuration mean: instances, fallbacks, prices. Pure, and worked out once for all requests."""

from __future__ import annotations

from supervisor.config.gateway_settings import chains_by_meaning
from supervisor.config.placement_settings import endpoint_of, meanings
from supervisor.config.settings import InstanceSettings, Settings
from supervisor.gateway.fallbacks import fallback_order
from supervisor.gateway.resolve import configured_id


class Names:
    """The names of one configuration.

    An endpoint is meant by its name, by the aliases of its replicas, and, if it is that of the first instance, by no name at all: all its replicas
    serve it. The name of an instance that has another endpoint means that one instance. The ids of models are known only while servers run: not here.
    """

    def __init__(self, settings: Settings) -> None:
        instances = settings.instances
        meant = meanings(instances)
        self._endpoints = {name: endpoint_of(name, own) for name, own in instances.items()}
        self._meanings: dict[str | None, str] = dict(meant.items())
        if self._endpoints:
            self._meanings[None] = next(iter(self._endpoints.values()))
        words: dict[str, list[str]] = {}
        for word, meaning in meant.items():
            words.setdefault(meaning, []).append(word)
        self._priced_as = {
            name: tuple(dict.fromkeys((endpoint, *words[endpoint], name, *_model_of(instances[name]))))
            for name, endpoint in self._endpoints.items()
        }
        self._replicas: dict[str, list[str]] = {}
        for name, endpoint in self._endpoints.items():
            self._replicas.setdefault(endpoint, []).append(name)
        for name in self._endpoints:
            self._replicas.setdefault(name, [name])
        chains = chains_by_meaning(settings.gateway.fallbacks, meant)
        self._fallbacks = {name: fallback_order(name, chains) for name in chains}

    def __contains__(self, name: object) -> bool:
        return name in self._meanings

    def instances(self, model: str | None) -> list[str]:
        """Those that a name means (None: that there is none), in the order of the configuration; none when it is not in the configuration."""
        meaning = self._meanings.get(model)
        return [] if meaning is None else self._replicas[meaning]

    def endpoint(self, model: str | None, instance: str) -> str:
        """The one name for all that mean the same: the endpoint of the first `instance` that a name means; an id of a model is its own."""
        if model is None or model in self._meanings:
            return self._endpoints.get(instance, instance)
        return model

    def priced_as(self, instance: str) -> tuple[str, ...]:
        """The names under which the price of what an instance serves may be found, in their order: those of its endpoint, its own, its model's."""
        return self._priced_as.get(instance, (instance,))

    def fallbacks(self, model: str | None, instance: str) -> tuple[str, ...]:
        """What may stand in for what a name means. The id of a model has the fallbacks of the endpoint of the first `instance` that serves it."""
        if not self._fallbacks:
            return ()
        meaning = self._meanings.get(model) or self._endpoints.get(instance, instance)
        return self._fallbacks.get(meaning, ())


def _model_of(settings: InstanceSettings) -> tuple[str, ...]:
    model = configured_id(settings)
    return () if model is None else (model,)
