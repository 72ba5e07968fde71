"""The file server of the campus, in memory; what it has outlives every agent."""

from waldur_site_agent.backend.exceptions import BackendError

FOLDERS = {}
CALLS = []
JOBS = {}
STATE = {"away": False, "fails": "", "slow": False}


def forget():
    FOLDERS.clear()
    CALLS.clear()
    JOBS.clear()
    STATE.update(away=False, fails="", slow=False)


def call(name):
    CALLS.append(name)
    if STATE["away"]:
        raise ConnectionError("the file server does not answer")
    if STATE["fails"] and name.startswith(STATE["fails"].split(" ")[0]):
        raise BackendError("HTTP status " + STATE["fails"].split(" ")[1])


def folder(name):
    call("get " + name)
    return FOLDERS.get(name)
