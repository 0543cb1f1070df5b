"""What can be wrong with a lab before anything runs in it."""

from collections.abc import Sequence


class LabError(Exception):
    """The lab was asked for something that it cannot do."""


class NotOnLinux(LabError):
    """A description asks for something that the kernel cannot be; the message says what, and why."""


class MissingMeans(LabError):
    """This machine, or whoever runs the lab, lacks what the lab needs."""

    def __init__(self, missing: Sequence[str]) -> None:
        super().__init__("; ".join(missing))
        self.missing = tuple(missing)
