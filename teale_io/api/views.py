"""What the node knows and can do: its models, status, peers, routes, and how to stop it."""

import time
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from teale_io.api.encoding import encode, plain
from teale_io.api.errors import Problem, json_response, model_not_found
from teale_io.service import NodeService
from teale_proto.effects import PeerState
from teale_proto.inputs import Task

_TASKS: Final = {task.value: task for task in Task}


class Views:
    """Endpoints that read, each a snapshot of the moment."""

    def __init__(self, service: NodeService, *, version: str) -> None:
        self._service = service
        self._version = version
        # The pool does not know when a model was made; a constant lets clients compare listings.
        self._created = int(time.time())

    async def models(self, _request: Request) -> Response:
        """Return all models of the pool, as OpenAI's list of models."""
        return _json({"object": "list", "data": [self._model(model) for model in self._pool()]})

    async def model(self, request: Request) -> Response:
        """Return one model of the pool."""
        model = request.path_params["model"]
        if model not in self._pool():
            raise model_not_found(model)
        return _json(self._model(model))

    async def health(self, _request: Request) -> Response:
        """Say that the node lives, and with how many peers."""
        return _json({"ok": True, "peers": self._service.status().peers_connected})

    async def status(self, _request: Request) -> Response:
        """Return the node at a glance."""
        status = plain(self._service.status())
        assert isinstance(status, dict)
        return _json({**status, "problems": self._service.problems(), "version": self._version})

    async def peers(self, _request: Request) -> Response:
        """Return the connected peers, and those that the relay names besides."""
        return _json({"connected": self._service.peers(), "listed": self._service.listed_peers()})

    async def route(self, request: Request) -> Response:
        """Return how a request for `model` and `task` (chat completions where it is absent) would be routed now."""
        model = request.query_params.get("model", "")
        if not model:
            raise Problem(400, "the query must name a `model`", code="invalid_request", param="model")
        task = _TASKS.get(request.query_params.get("task", Task.CHAT.value))
        if task is None:
            message = f"the task must be one of {', '.join(_TASKS)}"
            raise Problem(400, message, code="invalid_request", param="task")
        return _json(self._service.explain(task, model))

    def _pool(self) -> list[str]:
        connected = (peer.loaded_models for peer in self._service.peers() if peer.state is not PeerState.LOST)
        listed = (peer.loaded_models for peer in self._service.listed_peers())
        return sorted(set(self._service.status().loaded_models).union(*connected, *listed))

    def _model(self, model: str) -> dict[str, object]:
        return {"id": model, "object": "model", "created": self._created, "owned_by": "teale"}


class Shutdown:
    """The endpoint that ends the process, as an ASGI application."""

    def __init__(self, service: NodeService) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer first, since nothing is answered afterwards; a client that does not wait is obeyed as well."""
        try:
            await _json({"ok": True})(scope, receive, send)
        finally:
            self._service.stop()


def _json(document: object) -> Response:
    return json_response(encode(document))
