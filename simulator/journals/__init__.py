"""The journals of real programs: read, taken through the shipping core again, and told as the trace of a run."""

from simulator.journals.reading import Journal, read
from simulator.journals.replaying import Replay, Replayed
from teale_proto.journal import Ending, JournalError

__all__ = ["Ending", "Journal", "JournalError", "Replay", "Replayed", "read"]
