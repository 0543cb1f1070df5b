"""Random worlds with real programs, until one breaks a rule; and the same world in the simulator at once."""

from simulator.lab.fuzz.campaign import LabCampaign, campaign
from simulator.lab.fuzz.values import LabFinding, LabReport, LabTrial

__all__ = ["LabCampaign", "LabFinding", "LabReport", "LabTrial", "campaign"]
