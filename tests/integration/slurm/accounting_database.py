"""slurmdbd's own tables: for an independent count, and for jobs that nobody can wait for."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.patience import patience

if TYPE_CHECKING:
    from integration.conftest import RealSlurm

_COUNT = """
SELECT account, user, {columns} FROM (
  SELECT j.account, a.user, CONCAT(',', j.tres_alloc, ',') AS tres,
    GREATEST(0, LEAST(last, {end}) - GREATEST(first, {start}))
    - (SELECT COALESCE(SUM(GREATEST(0,
          LEAST(IF(s.time_end = 0, last, s.time_end), last, {end})
          - GREATEST(s.time_start, first, {start}))), 0)
       FROM wsatest_suspend_table s WHERE s.job_db_inx = j.job_db_inx) AS ran
  FROM (SELECT *, GREATEST(time_start, time_submit) AS first,
               IF(time_end = 0, UNIX_TIMESTAMP(), time_end) AS last
        FROM wsatest_job_table WHERE time_start > 0) j
  JOIN wsatest_assoc_table a ON a.id_assoc = j.id_assoc
  WHERE j.account = '{account}') counted
GROUP BY account, user HAVING SUM(ran) > 0
"""
_AMOUNT = """
SUM(ran * CAST(IF(LOCATE(',{id}=', tres),
  SUBSTRING_INDEX(SUBSTRING_INDEX(tres, ',{id}=', -1), ',', 1), 0) AS UNSIGNED))
"""
_TRES = "SELECT id, IF(name = '', type, CONCAT(type, '/', name)) FROM tres_table"
_ASSOCIATION = "SELECT id_assoc FROM wsatest_assoc_table WHERE acct='{account}' AND user='{user}'"
_JOB = """
INSERT INTO wsatest_job_table (account, cpus_req, job_name, id_assoc, id_job, id_resv, id_wckey,
  id_user, id_group, het_job_id, het_job_offset, state_reason_prev, nodes_alloc, `partition`,
  priority, state, time_submit, time_eligible, time_start, time_end, time_suspended, tres_alloc,
  nodelist)
VALUES ('{account}', 1, 'inserted', {association}, {job}, 0, 0, {uid}, 0, 0, 4294967294, 0, 1,
  'main', 1, {state}, {submit}, {start}, {start}, {end}, {stood}, '{tres}', 'testnode');
SELECT LAST_INSERT_ID()
"""
_SUSPENSION = (
    "INSERT INTO wsatest_suspend_table (job_db_inx, id_assoc, time_start, time_end)"
    " VALUES ({row}, {association}, {start}, {end})"
)
_NO_USER = "UPDATE wsatest_job_table SET id_user = 4294967294 WHERE job_db_inx = {row}"
_FORGET = "DELETE FROM wsatest_job_table WHERE account = '{account}'"
_LAST_RAN = """
UPDATE wsatest_last_ran_table
SET hourly_rollup = {moment}, daily_rollup = {moment}, monthly_rollup = {moment};
UPDATE wsatest_event_table SET time_start = LEAST(time_start, {moment})
WHERE time_end = 0 AND node_name = ''
"""


class AccountingDatabase:
    """The database below slurmdbd, over its socket."""

    def __init__(self, slurm: RealSlurm) -> None:
        self._slurm = slurm

    def sql(self, statement: str) -> list[list[str]]:
        """Run a statement and return its rows as text."""
        socket = self._slurm.directory / "db" / "socket"
        command = ["mariadb", "--no-defaults", "-uroot", f"-S{socket}", "slurm_acct_db", "-N", "-B"]
        done = subprocess.run(
            [*command, "-e", statement],
            capture_output=True,
            text=True,
            check=True,
            timeout=patience(),
        )
        return [line.split("\t") for line in done.stdout.splitlines()]

    def used(
        self, account: str, start: int, end: int, tres: Sequence[str]
    ) -> dict[str, dict[str, int]]:
        """TRES-seconds by user, between two epochs, from the tables of jobs and suspensions."""
        ids = {name: number for number, name in self.sql(_TRES)}
        columns = ", ".join(_AMOUNT.format(id=ids[name]) for name in tres)
        counted = self.sql(_COUNT.format(columns=columns, account=account, start=start, end=end))
        return {
            user: dict(zip(tres, map(int, amounts), strict=True)) for _, user, *amounts in counted
        }

    def insert(
        self,
        job: int,
        account: str,
        user: str,
        start: int,
        end: int,
        *,
        submit: int | None = None,
        tres: str = "1=2,2=300",
        state: int = 3,
        suspensions: Sequence[tuple[int, int]] = (),
    ) -> int:
        """Put a run of a job into the tables and return the number of its row."""
        found = self.sql(_ASSOCIATION.format(account=account, user=user))
        association = found[0][0] if found else "0"
        ((row,),) = self.sql(
            _JOB.format(
                account=account,
                job=job,
                association=association,
                tres=tres,
                uid=self._slurm.run("id", "-u", user).stdout.strip() if user else "4242",
                state=state,
                submit=submit or start,
                start=start,
                end=end,
                stood=sum(last - first for first, last in suspensions),
            )
        )
        for first, last in suspensions:
            self.sql(_SUSPENSION.format(row=row, association=association, start=first, end=last))
        return int(row)

    def forget_user(self, row: int) -> None:
        """Let a row have no user any more: neither a name nor a number."""
        self.sql(_NO_USER.format(row=row))

    def forget(self, account: str) -> None:
        """Remove the jobs of an account."""
        self.sql(_FORGET.format(account=account))

    def add_up_again_from(self, moment: int) -> None:
        """Let slurmdbd add up usage from a moment on, when it starts the next time.

        The cluster must have been there: sreport is silent about times before it was registered.
        """
        self.sql(_LAST_RAN.format(moment=moment))
