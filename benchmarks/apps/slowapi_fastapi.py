"""slowapi (moving window, a list of the hits) on a FastAPI view."""

import os

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import APIKeyHeader
from granian.utils.proxies import wrap_asgi_with_proxy_headers
from key_table import owner_of
from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
from slowapi.util import get_remote_address

limiter = Limiter(
    key_func=get_remote_address,
    storage_uri=os.environ["REDIS_URL"].replace("unix://", "redis+unix://"),
    strategy="moving-window",
)
application = FastAPI()
application.state.limiter = limiter
application.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)


async def known_key(key: str = Depends(APIKeyHeader(name="X-API-Key"))):
    if owner_of(key) is None:
        raise HTTPException(401)


@application.get("/", dependencies=[Depends(known_key)])
@limiter.limit(os.environ["RATE_LIMIT"])
async def hello(request: Request):
    return {"message": "Hello, World!"}


# uvicorn takes the address from X-Forwarded-For by itself; on granian the application does.
behind_proxy = wrap_asgi_with_proxy_headers(application)
