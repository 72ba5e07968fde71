"""Worlds in which every operation has something to answer with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from waldur_site_agent.sandbox import Sandbox


def fill_with_accounts_and_limits(sandbox: Sandbox) -> None:
    """Add to the demo what membership is made of beside people, and a policy on the offering."""
    resource = next(iter(sandbox.customer.world.resources.values()))
    sandbox.customer.add_service_account(resource.project, "svc-robot", email="robot@example.org")
    sandbox.customer.add_course_account(resource.project, "course-1")
    sandbox.customer.add_course_account(resource.project, None, "Pending")
    sandbox.customer.set_user_limit(resource, "ada", "cpu", "10.5")
    sandbox.customer.add_periodic_policy()
