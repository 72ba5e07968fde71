"""The sandbox in the foreground, as ``waldur-site-agent sandbox`` does it."""

from __future__ import annotations

import sys

from waldur_site_agent_sandbox.commands import serve

if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:], "python -m waldur_site_agent_sandbox"))
