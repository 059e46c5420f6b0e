"""For everything on gunicorn but this project, which has settings and a worker of its own.

gthread was tried too: it often takes all of a client's connections into one of two workers, and
then answers half as much.
"""

worker_class = "sync"
control_socket_disable = True
loglevel = "warning"
