"""Random worlds in a lab."""
