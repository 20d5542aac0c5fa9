"""`/v1/files`: what batches are made of, and what comes of them (OpenAI's Files API)."""

from __future__ import annotations

import hashlib

from aiohttp import hdrs, web

from supervisor.errors import MalformedRequestError
from supervisor.gateway.batch.files import UPLOADED_PURPOSE, shown_name
from supervisor.gateway.idempotency import Keeping
from web.calling import caller_of
from web.idempotency import IDEMPOTENCY_KEY, KEY_PARAMETER, REPEATED, answered_once, kept
from web.keys import SUPERVISOR
from web.lists import page_of, page_parameters, page_schema
from web.registry import MULTIPART, Body, Parameter, Policy, Reply, RouteTable, Schema
from web.schemas import BOOLEAN, INTEGER, STRING, described, optional, record, ref
from web.uploads import FILE, read_upload

routes = RouteTable("Batches")

OCTETS = "application/octet-stream"
PURPOSE = "purpose"
ORDERS = ("desc", "asc")
LIST_DEFAULT = LIST_MAX = 10_000

_FILE: Schema = record(
    {
        "id": STRING,
        "object": {"const": "file"},
        "bytes": INTEGER,
        "created_at": described(INTEGER, "Unix seconds."),
        "filename": STRING,
        "purpose": {"type": "string", "enum": ["batch", "batch_output"]},
        "status": {"const": "processed"},
        "expires_at": optional(INTEGER),
    }
)
_UPLOAD: Schema = {
    "type": "object",
    "properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"const": UPLOADED_PURPOSE}},
    "required": ["file", "purpose"],
}
_NOT_FOUND = Reply("No such file.", ref("Error"))


@routes.route(
    "POST",
    "/v1/files",
    summary="Upload a file",
    policy=Policy.INFERENCE,
    parameters=(KEY_PARAMETER,),
    body=Body(_UPLOAD, "At most `files.max_bytes`; no part may be encoded.", content_type=MULTIPART),
    responses={
        200: Reply("It is there.", _FILE),
        400: Reply("No such form, or a header is missing that tells it from that of another site.", ref("Error")),
        408: Reply("Nothing of the body came for `server.body_deadline_seconds`.", ref("Error")),
        413: Reply(
            "It exceeds `files.max_bytes`, or all files together `files.total_bytes`, those of the project half of it.",
            ref("Error"),
        ),
        503: Reply("The server is shutting down.", ref("Error")),
        507: Reply("The disk is full.", ref("Error")),
        **REPEATED,
    },
)
async def create_file(request: web.Request) -> web.StreamResponse:
    """Needs `Authorization` (whatever it holds, where no key is configured) or `X-Requested-With`: forms of other sites can send neither. An upload
    that is cut leaves nothing behind. With an `Idempotency-Key`, the same name and bytes are the same request, whatever the form's boundary."""
    supervisor = request.app[SUPERVISOR]
    wait_seconds = supervisor.settings.server.body_deadline_seconds
    digest = hashlib.sha256()
    is_keyed = IDEMPOTENCY_KEY in request.headers

    async def write(data: bytes) -> None:
        if is_keyed:
            digest.update(data)
        await upload.write(data)

    async with supervisor.batches.files.upload(caller_of(request).project) as upload:
        form = await read_upload(request, write, wait_seconds)
        if form.filename is None:
            raise MalformedRequestError("The form holds no `file`.", param=FILE)
        _check_fields(dict(form.fields))
        name = shown_name(form.filename)

        async def finish(keeping: Keeping | None) -> web.StreamResponse:
            return kept(web.json_response((await upload.finish(name, UPLOADED_PURPOSE)).to_wire()), keeping)

        return await answered_once(request, finish, digest.digest(), name.encode("utf-8", "surrogatepass"))


def _check_fields(fields: dict[str, str]) -> None:
    purpose = fields.pop(PURPOSE, None)
    if purpose != UPLOADED_PURPOSE:
        raise MalformedRequestError(f"`{PURPOSE}` must be `{UPLOADED_PURPOSE}`.", param=PURPOSE)
    for name in fields:
        shown = name[:40]
        raise MalformedRequestError(f"`{shown}` is not supported: files stay until they are deleted.", param=shown)


@routes.route(
    "GET",
    "/v1/files",
    summary="List the files",
    policy=Policy.ANY,
    parameters=(
        *page_parameters(LIST_DEFAULT, LIST_MAX),
        Parameter("purpose", "Only files with this purpose.", STRING),
        Parameter("order", "By when they came to be.", {"type": "string", "enum": list(ORDERS), "default": ORDERS[0]}),
    ),
    responses={200: Reply("A page of them.", page_schema(_FILE)), 400: Reply("A bad parameter.", ref("Error"))},
)
async def list_files(request: web.Request) -> web.Response:
    """Those of the caller's project, the newest first unless told otherwise."""
    page = page_of(request.query, default=LIST_DEFAULT, maximum=LIST_MAX)
    order, purpose = request.query.get("order", ORDERS[0]), request.query.get(PURPOSE)
    if order not in ORDERS:
        raise MalformedRequestError(f"`order` must be {' or '.join(ORDERS)}.", param="order")
    files = request.app[SUPERVISOR].batches.files.all_of(caller_of(request).project)
    chosen = [file for file in files if purpose in (None, file.purpose)]
    return web.json_response(page.of(chosen if order == ORDERS[0] else chosen[::-1]))


@routes.route(
    "GET",
    "/v1/files/{file_id}",
    summary="One file",
    policy=Policy.ANY,
    responses={200: Reply("What is known of it.", _FILE), 404: _NOT_FOUND},
)
async def show_file(request: web.Request) -> web.Response:
    """Its name, size and purpose; `/content` has its bytes."""
    files = request.app[SUPERVISOR].batches.files
    return web.json_response(files.get(request.match_info["file_id"], caller_of(request).project).to_wire())


@routes.route(
    "GET",
    "/v1/files/{file_id}/content",
    summary="The bytes of a file",
    policy=Policy.ANY,
    responses={
        200: Reply("All of it.", {"type": "string", "format": "binary"}, OCTETS),
        206: Reply("The `Range` of it that was asked for.", {"type": "string", "format": "binary"}, OCTETS),
        304: Reply("It is as it was.", content_type=None),
        404: _NOT_FOUND,
        412: Reply("It is not as it was.", content_type=None),
        416: Reply("It has no such `Range`.", content_type=None),
    },
)
async def read_file(request: web.Request) -> web.StreamResponse:
    """To be saved, never shown: a browser is told so."""
    files = request.app[SUPERVISOR].batches.files
    file = files.get(request.match_info["file_id"], caller_of(request).project)
    headers = {hdrs.CONTENT_TYPE: OCTETS, hdrs.CONTENT_DISPOSITION: f'attachment; filename="{file.id}.jsonl"'}
    return web.FileResponse(files.path_of(file), headers=headers)


@routes.route(
    "DELETE",
    "/v1/files/{file_id}",
    summary="Delete a file",
    policy=Policy.INFERENCE,
    responses={
        200: Reply(
            "It is gone.", record({"id": STRING, "object": {"const": "file"}, "deleted": described(BOOLEAN, "True.")})
        ),
        404: _NOT_FOUND,
        503: Reply("The server is shutting down.", ref("Error")),
    },
)
async def delete_file(request: web.Request) -> web.Response:
    """Batches that were made of it go on: they have its lines."""
    file_id = request.match_info["file_id"]
    await request.app[SUPERVISOR].batches.files.delete(file_id, caller_of(request).project)
    return web.json_response({"id": file_id, "object": "file", "deleted": True})
