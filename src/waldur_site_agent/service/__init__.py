"""The long-running process: schedule, signals, logging, locks."""
