"""Explanations: why somebody is not in an account, from facts alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from waldur_site_agent.model.marketplace import (
    OfferingUser,
    OfferingUserState,
    Resource,
    TeamMember,
)
from waldur_site_agent.model.standing import MemberStanding, Refusal, ResourceStanding
from waldur_site_agent.planning.explanation import Explanation, Facts, ResourceFacts, explain
from waldur_site_agent.planning.membership import AccountPlan, AccountWanted

NOW = datetime(2026, 5, 1, tzinfo=UTC)
PERSON = OfferingUser(uuid=UUID(int=1), user_uuid=UUID(int=2), username="ada", has_consent=True)
RESOURCE = Resource(uuid=UUID(int=3), name="Ocean", state="OK", backend_id="a_ocean")
ROLE = TeamMember(uuid=PERSON.user_uuid, role="member")


def explained(
    person: OfferingUser | None = PERSON,
    resource: Resource = RESOURCE,
    roles: tuple[TeamMember, ...] = (ROLE,),
    members: dict[str, str] | None = None,
    *,
    with_consent: bool = True,
) -> Explanation:
    wanted = AccountWanted(id="a_ocean", resources=(resource,), members=members or {})
    refusal = Refusal(rule="association", value="none")
    standing = ResourceStanding(
        exists=True, members={"ada": MemberStanding(is_member=False, refusals=(refusal,))}
    )
    found = ResourceFacts(
        account="a_ocean",
        resources=(resource,),
        plan=AccountPlan(wanted=wanted),
        standing=standing,
        team=roles,
    )
    people = () if person is None else (person,)
    return explain(
        Facts(
            now=NOW,
            with_consent=with_consent,
            users={each.user_uuid: each for each in people},
            asked_users=("ada",),
            persons=people,
            resources=(found,),
        )
    )


def why(explanation: Explanation) -> str:
    return explanation.resources[0].members[0].why


@pytest.mark.parametrize(
    ("person", "reason"),
    [
        (None, "no user of the offering with this name"),
        (replace(PERSON, state=OfferingUserState.ERROR_CREATING), 'in state "Error creating"'),
        (replace(PERSON, is_restricted=True), "the user is restricted in Waldur"),
        (replace(PERSON, has_consent=False), "has not consented to the terms"),
    ],
)
def test_a_person_who_cannot_be_let_in_anywhere_is_told_why(
    person: OfferingUser | None, reason: str
) -> None:
    assert reason in why(explained(person))


def test_consent_matters_only_where_the_site_requires_it() -> None:
    person = replace(PERSON, has_consent=False)
    assert why(explained(person, roles=(), with_consent=False)) == "has no role in the project"


def test_a_role_that_has_ended_is_named_with_its_end() -> None:
    ended = replace(ROLE, expiration_time=NOW - timedelta(hours=1))
    assert why(explained(roles=(ended,))) == "role member ended 2026-04-30T23:00+00:00"


def test_a_restricted_resource_comes_before_what_concerns_the_person() -> None:
    resource = replace(RESOURCE, restrict_member_access=True)
    assert "restricted" in why(explained(None, resource))


def test_reasons_against_jobs_count_only_for_those_whom_waldur_wants_in() -> None:
    assert list(explained().refusals()) == []
    wanted = explained(members={"ada": "is in the project's team"})
    assert [about for about, _ in wanted.refusals()] == ["ada in a_ocean"]
