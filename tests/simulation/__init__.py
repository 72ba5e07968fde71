"""The whole agent in one process, against the sandbox and the simulated Slurm, by seed.

Customers, jobs, administrators and faults are chosen by a random number generator; what must hold
is checked after each request and command, after each step, and at the end. One seed always does
the same.
"""
