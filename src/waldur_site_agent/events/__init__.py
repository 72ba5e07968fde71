"""From the message broker to the cycle that an event asks for, and to the part it is about."""
