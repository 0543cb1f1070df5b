"""Prediction and measurement of one scenario, side by side: the simulator and the lab."""
