"""The local API: OpenAI-compatible, and a view into the node.

It sees the node through `teale_io.service.NodeService` and nothing else, and is served on the loopback
interface to programs of this machine. Pages in a browser are kept out; see `guard`.
"""

from teale_io.api.app import create_app
from teale_io.api.limits import Limits
from teale_io.api.server import serve_api

__all__ = ["Limits", "create_app", "serve_api"]
