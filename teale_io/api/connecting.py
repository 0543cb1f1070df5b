"""`POST /api/connect`: a node address that somebody pasted, dialled."""

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from teale_io.api.encoding import encode
from teale_io.api.errors import Problem, json_response
from teale_io.service import NodeService
from teale_proto.errors import LocalError
from teale_proto.node_address import LENGTH_MAX, AddressError, NodeAddress, parse_node_address, written


class _Wanted(msgspec.Struct):
    address: Annotated[str, Meta(max_length=LENGTH_MAX)]


class Connect:
    """The endpoint, as an ASGI application."""

    def __init__(self, service: NodeService) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin to connect, and answer at once: whether it succeeds is seen in `/api/peers` and `/api/events`."""
        wanted = _wanted(await Request(scope, receive).body())
        try:
            self._service.connect(wanted.node, wanted.addresses)
        except LocalError as error:
            raise Problem(409, str(error), code="not_possible", param="address") from error
        document = {
            "node_id": wanted.node,
            "relay": wanted.relay or None,
            "addresses": [written(each) for each in wanted.addresses],
        }
        await json_response(encode(document), status=202)(scope, receive, send)


def _wanted(body: bytes) -> NodeAddress:
    try:
        return parse_node_address(msgspec.json.decode(body, type=_Wanted).address)
    except AddressError as error:
        raise Problem(400, error.reason, code="invalid_request", param="address") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, f"the request is not valid: {error}", code="invalid_request", param="address") from error
