"""Pure decisions: wanted and found become a plan. No I/O, no clock, no logging."""
