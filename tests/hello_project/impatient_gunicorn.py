"""The site's gunicorn.conf.py, with a worker that waits a tenth as long for its clients."""

from pathlib import Path

from hello_project import gunicorn_worker

gunicorn_worker.ARRIVAL_SECONDS /= 10  # type: ignore[misc]
gunicorn_worker.LINGER_SECONDS /= 10  # type: ignore[misc]
exec(Path("gunicorn.conf.py").read_text())
keepalive = 1
