# Any Debian with Python 3.11 or newer as `python3`, and its venv module, serves as the base.
# Tags move; a release names the digest too, as printed by
# `docker buildx imagetools inspect docker.io/library/python:3.14.8-slim-trixie`:
#   --build-arg PYTHON_IMAGE=docker.io/library/python:3.14.8-slim-trixie@sha256:…
ARG PYTHON_IMAGE=docker.io/library/python:3.14.8-slim-trixie


FROM ${PYTHON_IMAGE} AS build

WORKDIR /app
COPY requirements.txt .
# The venv gets no pip of its own. Another index or CA: --secret id=pip.conf,src=…
# Its bytecode does not go by its sources' dates, which copying may change.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv /opt/pip \
    && python3 -m venv --without-pip /opt/venv \
    && /opt/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir --no-compile \
        --only-binary :all: --require-hashes -r requirements.txt \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/venv

COPY . .
RUN python3 -m compileall -q --invalidation-mode unchecked-hash . \
    && chmod -R a+rX,go-w .


FROM ${PYTHON_IMAGE}

LABEL org.opencontainers.image.title="hello-project" \
      org.opencontainers.image.description="A Django HTTP API behind API keys and an exact rate limit"

# The official image ships its standard library without bytecode: each process would compile it.
RUN python3 -m compileall -q -x '/(test|tests|site-packages)/' \
        "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"

RUN groupadd --gid 10001 app \
    && useradd --uid 10001 --gid app --no-log-init --no-create-home --home-dir /data \
        --shell /usr/sbin/nologin app \
    && install --directory --owner app --group app --mode 0700 /data

COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app

WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DATA_DIR=/data \
    HOST=0.0.0.0 \
    PORT=8000
# Heartbeats in memory: no slow disk stalls a worker, and a read-only root needs no /tmp.
ENV GUNICORN_CMD_ARGS=--worker-tmp-dir=/dev/shm

# By number, so that an orchestrator can tell that it is not root.
USER 10001:10001
# What `python manage.py up` keeps: its database, its secret key, the embedded store's socket.
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os; server = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT'] or 8000), timeout=4); server.request('GET', '/livez'); raise SystemExit(server.getresponse().status != 200)"]

CMD ["gunicorn", "hello_project.wsgi"]
