"""Flask-Limiter (moving window, a list of the hits) on a Flask view."""

import os

from flask import Flask, abort, request
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from key_table import owner_of
from werkzeug.middleware.proxy_fix import ProxyFix

application = Flask(__name__)
application.wsgi_app = ProxyFix(application.wsgi_app, x_for=1)
limiter = Limiter(
    get_remote_address,
    app=application,
    storage_uri=os.environ["REDIS_URL"].replace("unix://", "redis+unix://"),
    strategy="moving-window",
)


@application.get("/")
@limiter.limit(os.environ["RATE_LIMIT"])
def hello():
    if owner_of(request.headers.get("X-API-Key", "")) is None:
        abort(401)
    return {"message": "Hello, World!"}
