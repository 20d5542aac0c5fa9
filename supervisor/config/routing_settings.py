"""Settings of the router: which models the tiers mean, and the rules by which `auto` chooses (`contracts.md` §4)."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from supervisor.config.fields import LARGEST_COUNT, StrictModel, refuse

AUTO = "auto"
TWINS = {"haiku": "small", "sonnet": "medium", "opus": "large", "small": "haiku", "medium": "sonnet", "large": "opus"}
"""Each tier by its other name."""

# They go into a header of the answer.
ModelName = Annotated[str, Field(pattern=r"^[\x20-\x7e]{1,200}$")]
Reason = Annotated[str, Field(pattern=r"^[\x20-\x7e]{1,200}$")]
Word = Annotated[str, Field(min_length=1, max_length=100)]
TokenBound = Annotated[int, Field(strict=True, ge=0, le=LARGEST_COUNT, json_schema_extra={"x-unit": "tokens"})]
CharacterBound = Annotated[int, Field(strict=True, ge=1, le=LARGEST_COUNT, json_schema_extra={"x-unit": "characters"})]


class TierSettings(StrictModel):
    """The model that each tier means: an instance's name or a model's id. A tier that is left out means what its twin means, else the default
    instance."""

    haiku: ModelName | None = Field(None, description="Twin of `small`.")
    sonnet: ModelName | None = Field(None, description="Twin of `medium`.")
    opus: ModelName | None = Field(None, description="Twin of `large`.")
    small: ModelName | None = Field(None, description="Twin of `haiku`.")
    medium: ModelName | None = Field(None, description="Twin of `sonnet`.")
    large: ModelName | None = Field(None, description="Twin of `opus`.")

    def model_of(self, tier: str) -> str | None:
        """What a tier means; None: the default instance. KeyError when it is no tier."""
        twin: str | None = getattr(self, TWINS[tier])
        return getattr(self, tier) or twin

    @model_validator(mode="after")
    def _lead_to_models(self) -> Self:
        for tier in TWINS:
            if getattr(self, tier) in {AUTO, *TWINS}:
                refuse([(tier, f"`{tier}` leads to another tier", "name an instance or a model")])
        return self


class RoutingRule(StrictModel):
    """A rule of the router. It applies when every condition that it names holds."""

    remaining_below: TokenBound | None = Field(
        None, description="The budget has fewer tokens left; never so without a budget."
    )
    context_above: TokenBound | None = Field(None, description="The context is larger.")
    prompt_shorter_than: CharacterBound | None = Field(None, description="The prompt is shorter.")
    words: tuple[Word, ...] = Field((), description="The prompt holds one of these words, in capitals or not.")
    model: ModelName = Field(description="What is chosen then: a tier, or a model's name.")
    reason: Reason = Field(description="Why, for the client.")

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        conditions = (self.remaining_below, self.context_above, self.prompt_shorter_than)
        if not self.words and all(condition is None for condition in conditions):
            refuse([("model", "a rule without a condition hides those after it", "set `routing.default` instead")])
        return self


_SIMPLE = ("list", "format", "count", "show", "get", "create", "add")
_HARD = (
    "analyze",
    "architect",
    "debug",
    "design",
    "implement",
    "optimize",
    "refactor",
    "review",
    "test",
    "diagnose",
    "strategy",
)
DEFAULT_RULES = (
    RoutingRule(remaining_below=1_000, model="small", reason="less than 1000 tokens of the budget remain"),
    RoutingRule(context_above=10_000, model="large", reason="the context exceeds 10000 tokens"),
    RoutingRule(prompt_shorter_than=100, words=_SIMPLE, model="small", reason="a short prompt that asks for little"),
    RoutingRule(
        remaining_below=5_000,
        words=_HARD,
        model="small",
        reason="a demanding prompt, but less than 5000 tokens of the budget remain",
    ),
    RoutingRule(words=_HARD, model="medium", reason="a demanding prompt"),
)


class RoutingSettings(StrictModel):
    """Which models the tiers mean, and how `auto` chooses."""

    tiers: TierSettings = Field(
        default_factory=TierSettings,
        description="The models that the tiers mean; a tier that is left out means what its twin does, else the default instance.",
    )
    rules: tuple[RoutingRule, ...] = Field(
        DEFAULT_RULES, description="Tried in order for the model `auto`; the first that applies chooses."
    )
    default: ModelName = Field(
        "medium", description="What `auto` means when no rule applies: a tier, or a model's name."
    )

    @model_validator(mode="after")
    def _choose_models(self) -> Self:
        if AUTO in {self.default, *(rule.model for rule in self.rules)}:
            refuse(
                [("default", "`auto` cannot choose `auto`", "name a tier or a model in each rule and as the default")]
            )
        return self
