from waldur_site_agent.common.plugin_schemas import (
    SECRET,
    CommonBackendSettingsSchema,
    PluginComponentSchema,
)
from pydantic import Field


class CampusSettings(CommonBackendSettingsSchema):
    server: str
    password: str = Field(json_schema_extra=SECRET)


class CampusComponent(PluginComponentSchema):
    pass
