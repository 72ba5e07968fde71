"""Usage: what jobs used, by account and user, read from the accounting database with sacct.

``asking`` has the commands, ``rows`` what they print, ``rules`` and ``seconds`` how long a job
counts in a span of time, ``tally`` the sums, ``reading`` the whole of it, ``checking`` the
comparison with sreport.
"""

from __future__ import annotations

from waldur_site_agent_slurm.settings import rules_of
from waldur_site_agent_slurm.usage.reading import JobReader, differences, reports

__all__ = ["JobReader", "differences", "reports", "rules_of"]
