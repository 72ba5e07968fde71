"""The demo shows an event end to end, or says why it does not."""

from __future__ import annotations

import subprocess

from harness.patience import patience
from harness.processes import COMMANDS, environment
from integration.broker import RealRabbitMQ


def last_scene(**variables: str) -> list[str]:
    done = subprocess.run(
        [str(COMMANDS / "waldur-site-agent"), "demo"],
        capture_output=True,
        text=True,
        env=environment(**variables),
        check=False,
        timeout=2 * patience(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    scene = done.stdout.rpartition("Now the agent listens.")[2].partition("\nWhat next?")[0]
    return scene.strip().splitlines()[1:]


def test_the_demo_shows_events_on_their_way_into_the_cluster(real_rabbitmq: RealRabbitMQ) -> None:
    joined, released = last_scene(DEMO_BROKER_PORT=str(real_rabbitmq.amqp_port))
    assert joined.startswith("Alan is back in climate: in the cluster ")
    assert released.startswith("The resource is paused no longer: in the cluster ")
    assert joined.endswith(" s later")


def test_the_demo_says_why_it_shows_no_events() -> None:
    (line,) = last_scene(DEMO_BROKER_REASON="RabbitMQ could not be started (no apt-get)")
    assert line.startswith("Not shown: RabbitMQ could not be started (no apt-get); as root on a ")
