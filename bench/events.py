"""How long it takes from an event to its effect in Slurm, with a real RabbitMQ and a real Slurm.

Run as root on a Debian-like machine: ``python bench/events.py [ROUNDS | --json]``. Starts what is
needed and stops it again; prints the distribution of the seconds from the change in Waldur (the
moment the event is published) to the moment the association is there, or each of them as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from integration import broker  # noqa: E402 - the path to it was just made
from integration import conftest as cluster  # noqa: E402 - as above
from integration.events.conftest import an_event_testbed  # noqa: E402 - as above

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.events.conftest import EventSite
    from waldur_site_agent_sandbox import Resource

POLL_SECONDS = 0.02
ROUNDS = 20


def main(asked: str) -> None:
    """Measure and print."""
    as_json = asked == "--json"
    rounds = ROUNDS if as_json else int(asked)
    slurm = cluster.RealSlurm(cluster.up())
    rabbitmq = broker.up()
    try:
        with tempfile.TemporaryDirectory() as directory:
            prefix = f"bench{os.getpid() % 10000}"
            try:
                with an_event_testbed(slurm, rabbitmq, Path(directory), prefix) as event_site:
                    seconds = measure(event_site, rounds)
            finally:
                slurm.clean(prefix)
    finally:
        rabbitmq.close()
        broker.down()
        here = {**os.environ, "WSA_SLURM_DIR": str(slurm.directory)}
        subprocess.run([cluster.SERVICE / "down.sh"], env=here, check=True)
    if as_json:
        print(json.dumps(seconds))
    else:
        show(seconds)


def measure(event_site: EventSite, rounds: int) -> list[float]:
    """Let somebody join and leave again and again; return what the joins took, in seconds."""
    ((project, resource),) = event_site.open_projects("climate")
    event_site.testbed.person("cyd", event_site.cyd)
    event_site.write(safety={"allow_removals": True})  # the same person leaves again and again
    taken = []
    with event_site.agent():
        for _ in range(rounds):
            began = time.monotonic()
            event_site.side.add_member(project, "cyd")
            wait_until(lambda: is_there(event_site, resource))
            taken.append(time.monotonic() - began)
            event_site.side.remove_member(project, "cyd")
            wait_until(lambda: not is_there(event_site, resource))
            event_site.settle()
    return taken


def is_there(event_site: EventSite, resource: Resource) -> bool:
    """Whether the database of slurmdbd has the association: asking Slurm would slow the agent."""
    account = event_site.side.current(resource).backend_id
    question = (
        "select count(*) from slurm_acct_db.wsatest_assoc_table "  # noqa: S608 - names of the bench's own
        f"where user = '{event_site.cyd}' and acct = '{account}' and deleted = 0"
    )
    socket = str(event_site.slurm.directory / "db" / "socket")
    command = ["mariadb", "--no-defaults", "-uroot", "-S", socket, "-N", "-e", question]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip() == "1"


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, for a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("an event has had no effect for a minute")
        time.sleep(POLL_SECONDS)


def show(seconds: list[float]) -> None:
    """Print the distribution."""
    deciles = quantiles(seconds, n=10, method="inclusive")
    print(f"event to association, {len(seconds)} rounds")
    print(f"  fastest {min(seconds):.2f} s, median {median(seconds):.2f} s")
    print(f"  90 % within {deciles[8]:.2f} s, slowest {max(seconds):.2f} s")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(ROUNDS))
