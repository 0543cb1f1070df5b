"""Errors in OpenAI's shape, so that its clients raise their own exception classes for ours.

`Problem` is raised anywhere below the router and becomes a response in one place. A failure that the core
reports maps to one status and code by the table `_FAILURES`.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from teale_io.api.encoding import encode
from teale_proto.effects import ReportFailed
from teale_proto.inputs import Failure

INVALID: Final = "invalid_request_error"
SERVER: Final = "server_error"

PLAIN_HEADERS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
"""Sent with every response: answers are private, and JSON is never to be taken for a page."""


class Problem(Exception):
    """Why a request is not answered: an HTTP status, and the members of OpenAI's error object."""

    def __init__(self, status: int, message: str, *, code: str, type_: str = INVALID, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.type = type_
        self.param = param
        self.headers: dict[str, str] = {}
        if status in RETRY_AFTER_SECONDS:
            self.headers["retry-after"] = str(RETRY_AFTER_SECONDS[status])

    def encode(self) -> bytes:
        """Return the error object as JSON on one line."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return encode({"error": error})

    def response(self) -> Response:
        """Return the whole HTTP response."""
        return json_response(self.encode(), status=self.status, headers=self.headers)


def json_response(body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response of JSON that is already encoded."""
    return Response(body, status, {**PLAIN_HEADERS, **(headers or {})}, media_type="application/json")


class _Kind(NamedTuple):
    status: int
    type: str
    code: str
    param: str | None = None


RETRY_AFTER_SECONDS: Final = {429: 5, 503: 5}
"""What clients that come at a bad moment are told to wait: RFC 6585, section 4, and RFC 9110, section 15.6.4."""

_FAILURES: Final[dict[Failure, _Kind]] = {
    Failure.MODEL_NOT_LOADED: _Kind(404, INVALID, "model_not_found", "model"),
    Failure.QUEUE_FULL: _Kind(429, "rate_limit_error", "queue_full"),
    Failure.UNAVAILABLE: _Kind(503, SERVER, "unavailable"),
    Failure.INTERNAL_ERROR: _Kind(502, SERVER, "internal_error"),
    Failure.TIMEOUT: _Kind(504, SERVER, "timeout"),
    Failure.CANCELLED: _Kind(499, SERVER, "cancelled"),
    Failure.INVALID_REQUEST: _Kind(400, INVALID, "invalid_request"),
    Failure.PEER_LOST: _Kind(502, SERVER, "peer_lost"),
}


def problem_of(report: ReportFailed, *, served_here: bool) -> Problem:
    """Return what to tell the client of a failed request; an internal error of our own is 500, a peer's 502."""
    kind = _FAILURES[report.failure]
    status = 500 if served_here and report.failure is Failure.INTERNAL_ERROR else kind.status
    message = report.message or f"the request failed: {kind.code}"
    return Problem(status, message, code=kind.code, type_=kind.type, param=kind.param)


def model_not_found(model: str) -> Problem:
    """Return the problem of a model that nobody in the pool has."""
    return Problem(404, f"no node in the pool has the model {model!r}", code="model_not_found", param="model")


async def answer_problem(_request: Request, error: Exception) -> Response:
    """Turn a Problem that reached the router into its response."""
    assert isinstance(error, Problem)
    return error.response()


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Turn the router's own refusals, such as 404 and 405, into OpenAI's shape."""
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method_not_allowed"}
    messages = {
        404: f"there is nothing at {request.url.path}",
        405: f"{request.method} is not allowed at {request.url.path}",
    }
    problem = Problem(
        error.status_code,
        messages.get(error.status_code, error.detail),
        code=codes.get(error.status_code, "http_error"),
    )
    problem.headers.update(error.headers or {})
    return problem.response()
