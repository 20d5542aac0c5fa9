"""JSON Schemas of what goes over the wire, by name; the components of the OpenAPI document. A test holds real answers against them."""

from __future__ import annotations

from typing import Any

from supervisor.process.states import State
from web.registry import Schema

STRING: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
WHO_PAYS = (
    "Who pays: left out or `default`, the key's own project; any other only with the scope `admin`, or without a key."
)
BOOLEAN: Schema = {"type": "boolean"}


def ref(name: str) -> Schema:
    """A reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Schema) -> Schema:
    """An array of `items`."""
    return {"type": "array", "items": items}


def optional(schema: Schema) -> Schema:
    """`schema` or null."""
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def described(schema: Schema, description: str) -> Schema:
    """`schema` with words."""
    return {**schema, "description": description}


def record(properties: dict[str, Schema], *, optional_keys: tuple[str, ...] = ()) -> Schema:
    """An object whose `properties` are all there, but those of `optional_keys`."""
    required = [key for key in properties if key not in optional_keys]
    return {"type": "object", "properties": properties, "required": required}


_UNIX_MS = described(INTEGER, "Unix milliseconds.")
_ISO = {"type": "string", "format": "date-time"}
_STATUS: Schema = {"type": "string", "enum": [state.value for state in State]}

_ERROR = record(
    {
        "error": record(
            {
                "message": described(STRING, "What is wrong and what to do, for people."),
                "type": described(STRING, "The class of the error."),
                "param": described(optional(STRING), "The field at fault."),
                "code": described(optional(STRING), "The error, for programs."),
                "details": described({"type": "object"}, "More, for programs."),
            },
            optional_keys=("details",),
        )
    }
)

_ANTHROPIC_ERROR = record(
    {
        "type": {"const": "error"},
        "error": record(
            {
                "type": described(STRING, "The class of the error."),
                "message": described(STRING, "What is wrong and what to do, for people."),
                "code": described(STRING, "The error, for programs."),
            },
            optional_keys=("code",),
        ),
    }
)

_FLAT_ANSWER = record(
    {
        "id": STRING,
        "model": described(STRING, "The model that answered."),
        "content": STRING,
        "usage": record({"input_tokens": INTEGER, "output_tokens": INTEGER, "total_tokens": INTEGER}),
        "cost": described(optional(NUMBER), "null when the model has no price."),
        "project_id": STRING,
    }
)

_STATE_SEQ = described(INTEGER, "Counts its changes of state within an epoch; a gap means that some were missed.")

_MODEL = record(
    {
        "id": STRING,
        "name": STRING,
        "size": described(INTEGER, "Bytes; 0 is not known."),
        "type": STRING,
        "modified_at": described(INTEGER, "Unix seconds; 0 is not known."),
        "metadata": described({"type": "object"}, "What the header of its file says."),
    },
    optional_keys=("metadata",),
)

_INSTANCE = record(
    {
        "status": _STATUS,
        "models": array(ref("Model")),
        "lastError": optional(STRING),
        "retries": INTEGER,
        "uptime": described(NUMBER, "Seconds at the time of the message; count on from `startedAt`."),
        "startedAt": optional(_ISO),
        "isLoading": BOOLEAN,
        "instance": described(STRING, "Its name."),
        "engine": STRING,
        "pid": optional(INTEGER),
        "maxRetries": INTEGER,
        "nextRetryAt": optional(_UNIX_MS),
        "reason": described(optional(STRING), "Why it is not serving, for programs."),
        "remedy": described(optional(STRING), "What would help."),
        "exitCode": optional(INTEGER),
        "signal": optional(INTEGER),
        "stderrTail": array(STRING),
        "progress": described(optional(NUMBER), "0 to 1 while loading, when known."),
        "adopted": BOOLEAN,
        "address": optional(STRING),
        "headline": STRING,
        "explanation": described(STRING, "Why it is not ready, in a sentence."),
        "required": BOOLEAN,
        "readyAt": optional(_ISO),
        "surviveSupervisor": BOOLEAN,
        "lastCrash": described(optional(STRING), "What ended it the last time; stays after the recovery."),
        "requestsActive": INTEGER,
        "stateSeq": _STATE_SEQ,
    }
)

_HISTORY_ENTRY = record(
    {
        "stateSeq": _STATE_SEQ,
        "status": _STATUS,
        "reason": optional(STRING),
        "headline": STRING,
        "timestamp": _UNIX_MS,
    }
)

_LOG_ENTRY = record(
    {
        "id": INTEGER,
        "level": {"type": "string", "enum": ["info", "warn", "error"]},
        "message": STRING,
        "timestamp": _UNIX_MS,
        "stream": {"type": "string", "enum": ["stdout", "stderr"]},
        "context": record({"source": STRING, "instance": STRING}),
    }
)

_HEALTH = record(
    {
        "status": {"type": "string", "enum": ["ok", "degraded", "down"]},
        "version": STRING,
        "message": STRING,
        "services": described({"type": "object", "additionalProperties": _STATUS}, "The state of each instance."),
        "details": {"type": "object"},
    }
)

COMPONENTS: dict[str, Schema] = {
    "Error": _ERROR,
    "AnthropicError": _ANTHROPIC_ERROR,
    "FlatAnswer": _FLAT_ANSWER,
    "Model": _MODEL,
    "Instance": _INSTANCE,
    "HistoryEntry": _HISTORY_ENTRY,
    "InstanceDetail": {"allOf": [ref("Instance"), record({"history": array(ref("HistoryEntry"))})]},
    "Picture": record(
        {
            "instances": array(ref("Instance")),
            "default": described(optional(STRING), "The instance that requests without a model go to."),
            "epoch": described(STRING, "Names this run of the supervisor."),
            "seq": described(INTEGER, "The number of the newest event that is taken in."),
            "timestamp": _UNIX_MS,
        }
    ),
    "LogEntry": _LOG_ENTRY,
    "Logs": record({"instance": STRING, "logs": array(ref("LogEntry"))}),
    "Health": _HEALTH,
    "Readiness": record(
        {
            "ready": BOOLEAN,
            "waiting": array(record({"instance": STRING, "status": _STATUS, "reason": optional(STRING)})),
        }
    ),
    "Reload": record(
        {
            "status": STRING,
            "message": STRING,
            "changed": described(array(STRING), "Every instance that is not as before."),
            "retuned": described(array(STRING), "Those of them that took new figures without a restart."),
            "added": array(STRING),
            "removed": array(STRING),
            "unchanged": array(STRING),
            "needs_restart": described(array(STRING), "Settings that take effect at the supervisor's next start."),
        }
    ),
    "Done": record({"status": {"const": "ok"}, "message": STRING}),
}


def components() -> dict[str, Any]:
    """A copy of the components for the document."""
    return {name: dict(schema) for name, schema in COMPONENTS.items()}
