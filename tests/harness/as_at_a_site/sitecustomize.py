"""Hides packages that only development tools bring from processes that tests start.

structlog and httpx import them where they are there: that is a fifth of the agent's start-up, and
tracebacks look different with them. An agent that is installed at a site has neither.
"""

import sys

sys.modules.update(dict.fromkeys(("rich", "pygments")))  # type: ignore[arg-type]  # None: not there
