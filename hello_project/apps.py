from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class HelloProjectConfig(AppConfig):
    name = "hello_project"


class ConsoleConfig(AdminConfig):
    """In place of django.contrib.admin, whose templates and models it keeps."""

    default_site = "hello_project.console.Console"
