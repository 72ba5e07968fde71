"""A running service and offerings that cannot be served."""

from __future__ import annotations

import json
import signal
import uuid
from pathlib import Path
from typing import Any

from harness import Installation, eventually

UNKNOWN: dict[str, Any] = {"order_processing_backend": "slrum"}


NOT_FOUND = 'no backend "slrum" is installed; did you mean "slurm"? installed: moab, slurm'


def write(installation: Installation, change: dict[str, Any], **top_level: Any) -> None:
    """A file whose first offering is sound and whose second one is not."""
    second = {"name": "Second", "waldur_offering_uuid": uuid.uuid4().hex} | change
    installation.write_offerings({}, second, **top_level)


def test_the_service_goes_on_and_its_health_shows_who_is_not_served(
    installation: Installation, tmp_path: Path
) -> None:
    health = tmp_path / "health"
    write(installation, UNKNOWN, health_file=str(health))
    testbed = installation.testbed
    order = testbed.order(testbed.project(ada="ada01"))

    def workers() -> dict[str, dict[str, Any]]:
        found = json.loads(health.read_text()) if health.exists() else {"workers": []}
        return {worker["offering"]: worker for worker in found["workers"]}

    with installation.service() as service:
        eventually(lambda: testbed.state(order) == "done", "the order is done")
        eventually(lambda: workers()["Test cluster"]["status"] == "ok", "it says that it is well")
        assert workers()["Second"]["status"] == "failing"
        assert NOT_FOUND in workers()["Second"]["trouble"]
        assert service.text.count("offering not served") == 1
        service.send(signal.SIGTERM)
        assert service.wait() == 0


def test_a_reload_that_would_end_what_is_served_is_refused(installation: Installation) -> None:
    testbed = installation.testbed
    sound = {"name": "Second", "waldur_offering_uuid": uuid.uuid4().hex}
    installation.write_offerings({}, sound)
    with installation.service() as service:
        eventually(lambda: service.text.count("connected") >= 1, "it works")
        installation.write_offerings({}, sound | UNKNOWN)
        service.send(signal.SIGHUP)
        eventually(lambda: "the old one stays in force" in service.text, "the file is refused")
        assert NOT_FOUND in service.text
        installation.write_offerings({"allow_decrease": "true"}, sound)
        service.send(signal.SIGHUP)
        eventually(lambda: "configuration reloaded" in service.text, "the file is accepted")
        order = testbed.order(testbed.project(ada="ada01"))
        assert testbed.state(order) == "pending-provider"


def test_a_reload_with_an_offering_that_was_broken_before_is_accepted(
    installation: Installation,
) -> None:
    write(installation, UNKNOWN)
    with installation.service() as service:
        eventually(lambda: "connected" in service.text, "it works")
        write(installation, {"order_processing_backend": "slurmm"}, timezone="UTC")
        service.send(signal.SIGHUP)
        eventually(lambda: "configuration reloaded" in service.text, "the file is accepted")
        assert service.text.count("offering not served") == 2
