"""Says what to install where the extra ``sandbox`` is missing; imported before all else here."""

import sys
from importlib.util import find_spec

_MISSING = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
if _MISSING:
    _ADVICE = (
        f"the sandbox needs {' and '.join(_MISSING)}; "
        "install waldur-site-agent[sandbox] from where the agent came from, "
        "or in a checkout: pip install '.[sandbox]'"
    )
    if sys.argv[:1] == ["-m"]:  # on the way to __main__, which would only print a traceback
        sys.exit(_ADVICE)
    raise ImportError(_ADVICE)
