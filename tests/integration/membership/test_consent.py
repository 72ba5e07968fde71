"""``require_consent`` on a real Slurm: who revokes consent loses the account and the jobs in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from integration.membership.conftest import SlurmSite

pytestmark = pytest.mark.slurm


def test_only_those_who_have_consented_have_an_account(slurm_site: SlurmSite) -> None:
    slurm_site.site.write(membership_sync_backend="slurm", require_consent=True)
    ((_, resource),) = slurm_site.open_projects("climate")
    slurm_site.slurm.submit_job(slurm_site.bob, resource.backend_id)
    slurm_site.side.set_consent("bob", given=False)
    assert "has not consented to the terms" in slurm_site.sync("--dry-run")
    slurm_site.sync()
    account = slurm_site.account(resource)
    assert (account.users, account.jobs) == ({slurm_site.ada}, [])
    slurm_site.side.set_consent("bob", given=True)
    slurm_site.sync()
    assert slurm_site.account(resource).users == {slurm_site.ada, slurm_site.bob}
