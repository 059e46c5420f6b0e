"""The API's description in OpenAPI 3.1. drf-spectacular finds the paths; operations.py describes.

Importing this imports drf-spectacular, which no process is to pay for before it is asked.
"""

# mypy: allow-untyped-calls
# drf-spectacular has types for a part of it.

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Final

from drf_spectacular.generators import EndpointEnumerator, SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ComponentRegistry
from drf_spectacular.settings import spectacular_settings

from apikeys.authentication import ApiKeyAuthentication
from hello_project import urls
from hello_project.middleware import VERIFY
from hello_project.operations import ABOUT, COMPONENTS, OPERATIONS, SECURITY_SCHEMES, TAGS

VERSION: Final = "0.1.0"
"""That of pyproject.toml, which an image does not have."""


@lru_cache(maxsize=1)
def document() -> bytes:
    """The description, in JSON. It does not change while the process lives."""
    schema = Generator(patterns=urls.urlpatterns).get_schema(public=True)
    # Not by APPEND_COMPONENTS, which would sort them.
    schema["components"]["securitySchemes"] = SECURITY_SCHEMES
    return json.dumps(schema, ensure_ascii=False).encode()


class Endpoints(EndpointEnumerator):
    def get_path_from_regex(self, path_regex: str) -> str:
        """Of /verify without what a proxy may append."""
        path = str(super().get_path_from_regex(path_regex))
        return VERIFY if path.startswith(VERIFY) else path


class Generator(SchemaGenerator):
    endpoint_inspector_cls = Endpoints


class Description(AutoSchema):
    """DRF's DEFAULT_SCHEMA_CLASS here. Raises KeyError for a view that OPERATIONS has not."""

    def get_operation(
        self, path: str, path_regex: str, path_prefix: str, method: str, registry: ComponentRegistry
    ) -> dict[str, Any]:
        found = super().get_operation(path, path_regex, path_prefix, method, registry) or {}
        return found | OPERATIONS[type(self.view), method]

    def get_auth(self) -> list[dict[str, list[str]]]:
        takes_keys = any(
            isinstance(each, ApiKeyAuthentication) for each in self.view.get_authenticators()
        )
        return [{name: []} for name in SECURITY_SCHEMES] if takes_keys else []

    def get_request_serializer(self) -> dict[str, Any]:  # type: ignore[override]
        return {}

    def get_response_serializers(self) -> dict[str, Any]:  # type: ignore[override]
        return {}


# For good, since nothing else here uses drf-spectacular.
spectacular_settings.apply_patches(
    {
        "TITLE": "Hello",
        "VERSION": VERSION,
        "DESCRIPTION": ABOUT,
        "OAS_VERSION": "3.1.1",
        "SERVERS": [{"url": "/", "description": "This site"}],
        "TAGS": [{"name": tag} for tag in TAGS],
        "APPEND_COMPONENTS": COMPONENTS,
        "POSTPROCESSING_HOOKS": [],
        "SORT_OPERATIONS": False,
    }
)
