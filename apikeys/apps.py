from django.apps import AppConfig


class ApiKeysConfig(AppConfig):
    name = "apikeys"
    verbose_name = "Keys"
    default_auto_field = "django.db.models.BigAutoField"
