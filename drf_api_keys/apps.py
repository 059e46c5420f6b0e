from django.apps import AppConfig


class DrfApiKeysConfig(AppConfig):
    """Keys that were issued by djangorestframework-api-key: docs/from-drf-api-key.md."""

    name = "drf_api_keys"
    verbose_name = "Keys from djangorestframework-api-key"
