"""The MOAB Accounting Manager backend."""
