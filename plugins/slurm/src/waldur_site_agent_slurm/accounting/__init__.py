"""Usage: what jobs used, by account and user, read from the accounting database with sacct.

``asking`` has the commands, ``rows`` what they print, ``rules`` and ``seconds`` how long a job
counts in a span of time, ``tally`` the sums, ``reading`` the whole of it, ``checking`` the
comparison with sreport.
"""

from waldur_site_agent_slurm.accounting.checking import differences
from waldur_site_agent_slurm.accounting.reading import JobReader
from waldur_site_agent_slurm.accounting.reporting import reports
from waldur_site_agent_slurm.accounting.rules import rules_of

__all__ = ["JobReader", "differences", "reports", "rules_of"]
