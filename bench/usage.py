"""What it costs to read usage: jobs per second and memory, next to sacct alone.

    SLURM_CONF=... python -m bench.usage [--jobs 100000] [--suspended 10] [--keep]

Needs the Slurm of ``tests/services/slurm/up.sh`` (root): the jobs are written into the tables of
its slurmdbd, spread over eight users of one account and over two months, and removed afterwards.
Then the plugin reads both months with its own sacct, and sacct runs alone with the same arguments.
Figures are printed, nothing is judged.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

from waldur_site_agent.model.marketplace import Component
from waldur_site_agent.model.usage import BillingMonth
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.client import ProcessRunner
from waldur_site_agent_slurm.settings import SlurmSettings
from waldur_site_agent_slurm.usage import queries

ACCOUNT = "wsabench"
USERS = 8
MONTHS = (BillingMonth(2026, 2), BillingMonth(2026, 3))
TRES = ("cpu", "mem", "gres/gpu", "node")
FIRST_JOB = 50_000_000
INSERT = """
SET @first = UNIX_TIMESTAMP('2026-02-01 00:00:00'), @span = 59 * 86400;
INSERT INTO wsatest_job_table (account, cpus_req, job_name, id_assoc, id_job, id_resv, id_wckey,
  id_user, id_group, het_job_id, het_job_offset, state_reason_prev, nodes_alloc, `partition`,
  priority, state, time_submit, time_eligible, time_start, time_end, time_suspended, tres_alloc,
  nodelist)
SELECT a.acct, 1, 'bench', a.id_assoc, {first} + seq, 0, 0, 990, 0, 0, 4294967294, 0, 1, 'main',
  1, 3, @first + seq * @span DIV {jobs}, @first + seq * @span DIV {jobs},
  @first + seq * @span DIV {jobs} + 30, @first + seq * @span DIV {jobs} + 30 + seq % 86400 + 10,
  IF(seq % {every} = 0, 5, 0),
  CONCAT('1=', 1 + seq % 128, ',2=', 1000 * (1 + seq % 40), ',4=1,5=1', IF(seq % 3, '', ',1001=1')),
  'testnode'
FROM seq_1_to_{jobs}
JOIN (SELECT acct, id_assoc, ROW_NUMBER() OVER () - 1 AS place FROM wsatest_assoc_table
      WHERE acct = '{account}' AND user != '' AND deleted = 0) a ON a.place = seq % {users}
"""
REMOVE = "DELETE FROM wsatest_job_table WHERE account = '{account}'"


def main() -> None:
    """Measure as the command line says, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--suspended", type=int, default=10, help="how many were suspended")
    parser.add_argument("--keep", action="store_true", help="leave the jobs where they are")
    chosen = parser.parse_args()
    conf = Path(os.environ["SLURM_CONF"])
    _make_jobs(conf, chosen.jobs, max(1, chosen.jobs // max(1, chosen.suspended)))
    try:
        measure(chosen.jobs)
    finally:
        if not chosen.keep:
            _sql(conf, REMOVE.format(account=ACCOUNT))


def measure(jobs: int) -> None:
    """Read the usage of both months, then let sacct alone print the same."""
    periods = [month.period(UTC) for month in MONTHS]
    counted = {
        name: Component(type=name, measured_unit="h", label=name, accounting_type="usage")
        for name in TRES
    }
    backend = SlurmBackend(SlurmSettings(), counted)
    before = _peak_mebibytes()
    begun = time.monotonic()
    reports = backend.usages({ACCOUNT: datetime(2020, 1, 1, tzinfo=UTC)}, periods)
    took = time.monotonic() - begun
    after = _peak_mebibytes()
    first, last = (int(moment.timestamp()) for moment in (periods[0].start, periods[-1].end))
    argv = queries.jobs_between(first, last, "AllocTRES", None)
    begun = time.monotonic()
    ProcessRunner().stream(argv, 3600, _throw_away)
    streamed = time.monotonic() - begun
    begun = time.monotonic()
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True, env=_variables(), timeout=3600)
    alone = time.monotonic() - begun
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"real Slurm, {jobs} jobs written into its tables; {dict(backend.commands_run())}")
    total = sum(report.resources[ACCOUNT].total["cpu"] for report in reports)
    print(f"counted        {float(total):,.0f} cpu-minutes in {len(reports)} months")
    print(f"plugin         {took:8.2f} s   {jobs / took:10,.0f} jobs/s")
    print(f"sacct, piped   {streamed:8.2f} s   {jobs / streamed:10,.0f} jobs/s")
    print(f"sacct alone    {alone:8.2f} s   {jobs / alone:10,.0f} jobs/s")
    print(f"ratio          {took / alone:8.2f}")
    print(
        f"peak memory    {after:8.0f} MiB ({before:.0f} before reading); sacct {children:.0f} MiB"
    )


def _throw_away(lines: object) -> None:
    """Leave the lines to the runner, which reads them to the end."""


def _make_jobs(conf: Path, jobs: int, every: int) -> None:
    users = ",".join(f"wsatest{number + 1}" for number in range(USERS))
    for words in (("account", f"name={ACCOUNT}"), ("user", f"name={users}", f"account={ACCOUNT}")):
        ProcessRunner().run(("sacctmgr", "-i", "-Q", "add", *words), 60)
    _sql(conf, REMOVE.format(account=ACCOUNT))
    sizes = {"first": FIRST_JOB, "jobs": jobs, "every": every, "users": USERS}
    _sql(conf, INSERT.format(account=ACCOUNT, **sizes))


def _sql(conf: Path, statement: str) -> None:
    socket = conf.parents[1] / "db" / "socket"
    command = ["mariadb", "--no-defaults", "-uroot", f"-S{socket}", "slurm_acct_db", "-e"]
    subprocess.run([*command, statement], check=True)


def _variables() -> dict[str, str]:
    return {**os.environ, "TZ": "UTC", "SLURM_TIME_FORMAT": "%s", "LC_ALL": "C"}


def _peak_mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
