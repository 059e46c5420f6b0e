from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class HelloProjectConfig(AppConfig):
    name = "hello_project"

    def ready(self) -> None:
        from django.contrib import admin
        from django_otp.plugins.otp_static.models import StaticDevice
        from django_otp.plugins.otp_totp.models import TOTPDevice

        # Their pages would show each user's secret.
        admin.site.unregister([TOTPDevice, StaticDevice])


class ConsoleConfig(AdminConfig):
    """In place of django.contrib.admin, whose templates and models it keeps."""

    default_site = "hello_project.console.Console"
