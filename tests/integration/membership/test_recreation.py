"""``--recreate`` on a real Slurm whose accounts are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from integration.membership.conftest import SlurmSite

pytestmark = pytest.mark.slurm


def test_what_was_lost_is_made_again_and_jobs_run_in_it(slurm_site: SlurmSite) -> None:
    (_, ocean), (_, ice) = slurm_site.open_projects("ocean", "ice")
    slurm_site.side.set_flags(ice, paused=True)
    slurm_site.sync()
    before = slurm_site.slurm.associations(slurm_site.prefix)
    slurm_site.slurm.clean(slurm_site.prefix)
    assert slurm_site.slurm.accounts(slurm_site.prefix) == []
    planned = slurm_site.sync("--dry-run", "--recreate")
    assert planned.count("made again from Waldur") == 2
    assert slurm_site.slurm.accounts(slurm_site.prefix) == []
    slurm_site.sync("--recreate")
    assert slurm_site.slurm.associations(slurm_site.prefix) == before
    slurm_site.slurm.submit_job(slurm_site.ada, ocean.backend_id)
    assert "action applied" not in slurm_site.sync()
    slurm_site.side.set_flags(ice, paused=False)
    slurm_site.sync()
    assert slurm_site.account(ice).qos == (set(), "")
