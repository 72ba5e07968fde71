"""The two kinds of errors of the agent: temporary and permanent.

Any other exception is a bug: it ends the work on one object and is logged with its traceback, and
the object is retried later.
"""


class SiteAgentError(Exception):
    """Base of both; its text names the object, what happened, why, and the remedy.

    Args:
        problem: the object, what happened and why.
        remedy: what to do about it; part of the text, and also an attribute, to show it separately.
    """

    def __init__(self, problem: str = "", *, remedy: str = "") -> None:
        super().__init__(f"{problem}; {remedy}" if remedy else problem)
        self.problem = problem
        self.remedy = remedy


class TemporaryError(SiteAgentError):
    """Try again later: nothing in Waldur or in the backend is to be marked as failed."""


class InProgressError(TemporaryError):
    """The backend is still working on it, as it said it would: nothing is wrong."""


class PermanentError(SiteAgentError):
    """This will not work until somebody changes something; the text says who and what."""


class DefectError(TemporaryError):
    """A bug of the agent or of a plugin, met while working on one object; the others go on.

    Temporary, because the object's owner can do nothing about it; the cause is the bug itself.
    """
