"""Random worlds until a rule is broken; then the smallest world that still breaks it, in one file, to be replayed."""

from simulator.fuzz.campaign import campaign
from simulator.fuzz.capsule import CapsuleError
from simulator.fuzz.replaying import replay
from simulator.fuzz.values import CampaignReport, Finding, OnProgress, Progress, ReplayReport

__all__ = ["CampaignReport", "CapsuleError", "Finding", "OnProgress", "Progress", "ReplayReport", "campaign", "replay"]
