"""How the agent introduces itself. What is registered by name is found again by it."""

from __future__ import annotations

from waldur_site_agent.model.events import AgentProcessor, AgentService, QueueRegistration
from waldur_site_agent.waldur.operation import changing, listing_pages, making
from waldur_site_agent.waldur.rows import AgentIdentityRow, EventSubscriptionRow

_IDENTITIES = "marketplace-site-agent-identities/"
_SERVICES = "marketplace-site-agent-services/"
# Without ``config_file_content``: the configuration may hold secrets, and stays at the site.
_IDENTITY_KEYS = (
    "offering",
    "name",
    "version",
    "dependencies",
    "config_file_path",
    "last_restarted",
)

IDENTITIES = listing_pages(
    "marketplace_site_agent_identities_list",
    "list the agents of offering {uuid}",
    _IDENTITIES,
    AgentIdentityRow,
    filters=("offering_uuid", "name"),
    ordered_by=None,
    chooses_fields=False,
)
CREATE_IDENTITY = making(
    "marketplace_site_agent_identities_create",
    "introduce the agent of offering {uuid}",
    _IDENTITIES,
    AgentIdentityRow,
    body=_IDENTITY_KEYS,
    safe_to_repeat=False,
)
UPDATE_IDENTITY = changing(
    "marketplace_site_agent_identities_update",
    "update agent {uuid}",
    f"{_IDENTITIES}{{uuid}}/",
    AgentIdentityRow,
    body=_IDENTITY_KEYS,
    method="PUT",
)
REGISTER_SERVICE = making(
    "marketplace_site_agent_identities_register_service",
    "register a service of agent {uuid}",
    f"{_IDENTITIES}{{uuid}}/register_service/",
    AgentService,
    body=("name", "mode"),
    safe_to_repeat=True,
)
REGISTER_PROCESSOR = making(
    "marketplace_site_agent_services_register_processor",
    "register a processor of service {uuid}",
    f"{_SERVICES}{{uuid}}/register_processor/",
    AgentProcessor,
    body=("name", "backend_type", "backend_version"),
    safe_to_repeat=True,
)
SET_STATISTICS = making(
    "marketplace_site_agent_services_set_statistics",
    "set the statistics of service {uuid}",
    f"{_SERVICES}{{uuid}}/set_statistics/",
    AgentService,
    body=("statistics",),
    safe_to_repeat=True,
)
REGISTER_QUEUE = making(
    "marketplace_site_agent_identities_register_queue",
    "register the event queue of agent {uuid}",
    f"{_IDENTITIES}{{uuid}}/register_queue/",
    QueueRegistration,
    body=("object_types",),
    safe_to_repeat=True,
)
REGISTER_EVENT_SUBSCRIPTION = making(
    "marketplace_site_agent_identities_register_event_subscription",
    "register an event subscription of agent {uuid}",
    f"{_IDENTITIES}{{uuid}}/register_event_subscription/",
    EventSubscriptionRow,
    body=("observable_object_type", "description"),
    safe_to_repeat=True,
)
