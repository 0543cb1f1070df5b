"""What a node says of one peer: which conversations it has with it, and which of them it talks over.

A report tells of one conversation: that it is up, that it falls silent, that it is heard again. When one of several
ends, the report names the one that carries on, and says why.
"""

from typing import Final

from teale_proto.effects import Path, PeerState, ReportPeer

PREFERENCE: Final = (Path.LOCAL, Path.LAN, Path.DIRECT, Path.RELAY)
"""The best first."""


class View:
    """The conversations of a node with one peer, each healthy or not."""

    __slots__ = ("_healthy",)

    def __init__(self) -> None:
        self._healthy: dict[Path, bool] = {}

    @property
    def path(self) -> Path | None:
        """What it talks over, as `teale_proto.peer` chooses: what is healthy first, then by preference."""
        return min(self._healthy, key=lambda each: (not self._healthy[each], PREFERENCE.index(each)), default=None)

    @property
    def is_well(self) -> bool:
        """Whether what it talks over is healthy."""
        return any(self._healthy.values())

    def reported(self, report: ReportPeer) -> None:
        """Take a report about the peer."""
        if report.state is PeerState.LOST:
            self._healthy.clear()
        elif report.state is PeerState.DEGRADED:
            self._healthy[report.path] = False
        elif report.reason:
            self._ended(report.path)
        else:
            self._healthy[report.path] = True

    def _ended(self, best: Path) -> None:
        """Note that a conversation ended, and that `best` is now the best of those that are left."""
        others = [path for path in self._healthy if path is not best]
        better = [path for path in others if PREFERENCE.index(path) < PREFERENCE.index(best) and self._healthy[path]]
        # Of two, it is the other one. Of three, whatever would be preferred; and otherwise the one that matters least.
        for path in better or sorted(others, key=PREFERENCE.index)[-1:]:
            del self._healthy[path]
        self._healthy.setdefault(best, True)


def is_news_of_conversation(report: ReportPeer) -> bool:
    """Return whether a report says that the conversation it names is up."""
    return report.state is PeerState.CONNECTED and not report.reason
