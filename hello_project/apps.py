from django.apps import AppConfig


class HelloProjectConfig(AppConfig):
    name = "hello_project"
