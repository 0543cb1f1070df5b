"""The application: which endpoint answers what, and the layers around them.

From the outside in: the attendant reads the client, the guard keeps strangers' pages out, the router finds the
endpoint, and whatever is raised on the way becomes an error in OpenAI's shape.
"""

from collections.abc import Collection

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from teale_io.api.attendant import Attendant
from teale_io.api.connecting import Connect
from teale_io.api.errors import Problem, answer_http_exception, answer_problem
from teale_io.api.events import Events
from teale_io.api.generation import Generation
from teale_io.api.guard import Guard
from teale_io.api.limits import DEFAULT_LIMITS, Limits
from teale_io.api.views import Shutdown, Views
from teale_io.service import NodeService
from teale_proto.inputs import Task


def create_app(
    service: NodeService,
    *,
    allowed_hosts: Collection[str] = (),
    allowed_origins: Collection[str] = (),
    version: str,
    limits: Limits = DEFAULT_LIMITS,
) -> Starlette:
    """Return the local API of `service` as an ASGI application; it runs on trio only.

    `allowed_hosts` are names by which the node may be called besides those of the loopback interface.
    `allowed_origins`, such as "https://chat.example", are pages that may use it besides its own.
    """
    app = Starlette(
        routes=_routes(service, version, limits),
        middleware=[
            Middleware(Attendant, limits=limits),
            Middleware(Guard, allowed_hosts=allowed_hosts, allowed_origins=allowed_origins),
        ],
        exception_handlers={Problem: answer_problem, HTTPException: answer_http_exception},
    )
    app.router.redirect_slashes = False
    return app


def _routes(service: NodeService, version: str, limits: Limits) -> list[Route]:
    views = Views(service, version=version)
    return [
        *(Route(f"/v1/{task.value}", Generation(service, task, limits=limits), methods=["POST"]) for task in Task),
        Route("/v1/models", views.models),
        Route("/v1/models/{model:path}", views.model),
        Route("/health", views.health),
        Route("/api/status", views.status),
        Route("/api/peers", views.peers),
        Route("/api/route", views.route),
        Route("/api/events", Events(service, limits=limits), methods=["GET"]),
        Route("/api/connect", Connect(service), methods=["POST"]),
        Route("/api/shutdown", Shutdown(service), methods=["POST"]),
    ]
