"""Where Django looks for pages to register: this site's, in place of others' for the same."""

from hello_project import key_admin, user_admin

__all__ = ["key_admin", "user_admin"]
