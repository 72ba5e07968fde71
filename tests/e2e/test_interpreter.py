"""What a Python process does by itself: how it imports, and how it ends."""

from __future__ import annotations

import subprocess
import sys

from harness.patience import patience


def test_a_call_that_hangs_does_not_keep_the_process_alive() -> None:
    program = """
import threading
from waldur_site_agent.waldur.concurrency import concurrently, in_background

begun = threading.Barrier(3)

def hang(_number: int) -> None:
    begun.wait()
    threading.Event().wait()

in_background(lambda: concurrently(hang, [1, 2]), "asker")
begun.wait()
print("leaving")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=patience(),
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "leaving\n"), done.stderr


def test_importing_the_gateway_builds_no_models() -> None:
    program = (
        "import waldur_site_agent.waldur.operation as d, waldur_site_agent.waldur; "
        "print(len(d._adapters))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "0"
