"""Two ways to be wrong: our caller broke a rule, or a peer sent nonsense.

Timeouts, refusals and lost peers are neither: they are outcomes, and travel as values.
"""


class TealeError(Exception):
    """Base of all errors of the project, so that an application can catch them in one place."""


class LocalError(TealeError):
    """The caller used the core in a way that is not allowed now; nothing has changed."""


class PeerError(TealeError):
    """A peer sent what the protocol does not allow.

    Raised by parsers and caught where the connection is known; there it becomes a close reason and a
    report. `reason` is safe to log: it never quotes what the peer sent.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
