"""Waldur's objects as plugins of version 1 read them: those of the official SDK."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any
from uuid import UUID

from waldur_api_client.models.offering_user import OfferingUser as SdkOfferingUser
from waldur_api_client.models.project_user import ProjectUser
from waldur_api_client.models.resource import Resource as SdkResource

from waldur_site_agent.model.backend import ResourceFacts
from waldur_site_agent.model.marketplace import OfferingUser, TeamMember, Term


def resource_object(facts: ResourceFacts, backend_id: str | None = None) -> SdkResource:
    """A resource as the SDK has it."""
    record = {**facts.record, "uuid": str(facts.uuid)}
    record["attributes"] = dict(facts.attributes)
    record["limits"] = dict(record.get("limits") or {})
    record["backend_id"] = facts.backend_id if backend_id is None else backend_id
    return SdkResource.from_dict(record)


def term_of(facts: ResourceFacts | None) -> Term:
    """The time that the prepaid components of a resource are paid for."""
    record = facts.record if facts is not None else {}
    created, end = record.get("created"), record.get("end_date")
    term = Term.of(
        datetime.fromisoformat(str(created)) if created else None,
        date.fromisoformat(str(end)) if end else None,
    )
    return term.extended(facts.renewed_until if facts is not None else None)


def offering_user_object(user: OfferingUser) -> SdkOfferingUser:
    """An offering user as the SDK has it, with what the agent knows."""
    record: dict[str, Any] = {
        "uuid": str(user.uuid),
        "url": f"https://waldur.invalid/api/marketplace-offering-users/{user.uuid.hex}/",
        "user_uuid": str(user.user_uuid),
        "username": user.username,
        "state": user.state,
        "is_restricted": user.is_restricted,
        "user_username": user.user_username,
        "user_full_name": user.user_full_name,
        "user_first_name": user.user_first_name,
        "user_last_name": user.user_last_name,
        "user_email": user.user_email,
    }
    if user.created is not None:
        record["created"] = user.created.isoformat()
    return SdkOfferingUser.from_dict(record)


def project_user_object(member: TeamMember, user: OfferingUser | None) -> ProjectUser:
    """A member of a team as the SDK has it."""
    known = user or OfferingUser(uuid=UUID(int=0), user_uuid=member.uuid)
    return ProjectUser.from_dict(
        {
            "uuid": str(member.uuid),
            "url": f"https://waldur.invalid/api/users/{member.uuid.hex}/",
            "username": member.username or known.user_username,
            "full_name": member.full_name or known.user_full_name,
            "email": known.user_email,
            "role": member.role,
            "offering_user_username": known.username,
            "offering_user_state": known.state,
            "expiration_time": member.expiration_time.isoformat()
            if member.expiration_time
            else None,
        }
    )


def user_context(team: Iterable[TeamMember], users: Iterable[OfferingUser]) -> dict[str, Any]:
    """The people of a resource's project, as creations are told of them."""
    by_person = {user.user_uuid: user for user in users}
    members = [(member, by_person.get(member.uuid)) for member in team]
    accounts = [(member.uuid, user) for member, user in members if user is not None]
    people = [project_user_object(member, user) for member, user in members]
    return {
        "team": people,
        "offering_users": [offering_user_object(user) for _, user in accounts],
        "user_mappings": {
            member.uuid: each for (member, _), each in zip(members, people, strict=True)
        },
        "offering_user_mappings": {uuid: offering_user_object(user) for uuid, user in accounts},
        "plan_quotas": {},
        "ssh_keys": {},
    }


def people_arguments(
    names: Iterable[str], team: Iterable[TeamMember], users: Iterable[OfferingUser]
) -> Mapping[str, dict[str, Any]]:
    """What version 1 told with additions and removals, by username."""
    roles = {member.uuid: member.role for member in team}
    chosen = [user for user in users if user.username in {*names}]
    return {
        "user_roles": {u.username: roles[u.user_uuid] for u in chosen if u.user_uuid in roles},
        "user_cuids": {u.username: u.user_username for u in chosen if u.user_username},
        "user_emails": {u.username: u.user_email for u in chosen if u.user_email},
        "user_attributes": {u.username: _attributes(u) for u in chosen},
        "offering_user_states": {u.username: u.state for u in chosen},
    }


def _attributes(user: OfferingUser) -> dict[str, str]:
    found = {
        "full_name": user.user_full_name,
        "first_name": user.user_first_name,
        "last_name": user.user_last_name,
        "email": user.user_email,
    }
    return {key: value for key, value in found.items() if value}
