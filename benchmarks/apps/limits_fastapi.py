"""limits.aio (moving window, a list of the hits, without blocking) on a FastAPI view."""

import os

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import APIKeyHeader
from key_table import owner_of
from limits import parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter

storage = RedisStorage(
    os.environ["REDIS_URL"].replace("unix://", "async+redis+unix://"),
    implementation="redispy",  # Measured here, it is faster than the default, coredis.
)
limiter = MovingWindowRateLimiter(storage)
rate = parse(os.environ["RATE_LIMIT"])
application = FastAPI()


async def known_key(key: str = Depends(APIKeyHeader(name="X-API-Key"))):
    if owner_of(key) is None:
        raise HTTPException(401)


async def within_limit(request: Request):
    if not await limiter.hit(rate, request.client.host):
        raise HTTPException(429)


@application.get("/", dependencies=[Depends(known_key), Depends(within_limit)])
async def hello():
    return {"message": "Hello, World!"}
