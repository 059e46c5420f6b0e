"""The site's settings with the paths of extra_urls, for servers that tests start."""

from hello_project.settings import *  # noqa: F403

ROOT_URLCONF = "tests.hello_project.extra_urls"
# As the tests' own: their users log in there.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
