#!/usr/bin/env bash
# Builds the image from the Dockerfile as it stands over a Debian base, and runs it as its user on a
# read-only root. No Docker engine: buildah, podman and runc from Debian. As root, on Debian.
#
#   bash tests/image.sh [SUITE]        default: trixie
#
# STORAGE_DRIVER=overlay builds in 20 s; vfs works everywhere and copies every layer whole.
set -euo pipefail

project=$(cd "$(dirname "$0")/.." && pwd)
suite=${1:-trixie}
image=localhost/hello-project
work=$(mktemp -d /tmp/image.XXXXXX)
chmod 755 "$work"

export CONTAINERS_STORAGE_CONF=$work/storage.conf STORAGE_DRIVER=${STORAGE_DRIVER:-overlay}
export BUILDAH_ISOLATION=chroot
export DISABLE_HC_SYSTEMD=true # podman's timers for health checks need systemd
printf '[storage]\ndriver = "%s"\ngraphroot = "%s"\nrunroot = "%s"\n' \
    "$STORAGE_DRIVER" "$work/storage" "$work/run" > "$CONTAINERS_STORAGE_CONF"

engine() { podman --cgroup-manager cgroupfs --events-backend file --runtime runc "$@"; }
as_postgres() { (cd / && runuser -u postgres -- "$postgres/$1" "${@:2}"); }
fail() { echo "FAILED: $*" >&2; exit 1; }

clean_up() {
    engine rm --all --force --volumes > /dev/null 2>&1 || true
    buildah rm --all > /dev/null 2>&1 || true
    [ ! -f "$work/redis.pid" ] || kill "$(cat "$work/redis.pid")" || true
    [ ! -f "$work/pg/data/postmaster.pid" ] ||
        as_postgres pg_ctl -D "$work/pg/data" -m immediate stop > /dev/null || true
    umount "$work/storage/overlay" 2> /dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT

step() { echo; echo "== $* ($SECONDS s)"; }

step packages
missing=()
for package in buildah podman runc conmon debootstrap redis-server postgresql curl; do
    dpkg -s "$package" > /dev/null 2>&1 || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    apt-get install -yqq --no-install-recommends "${missing[@]}" > /dev/null
fi

postgres=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -1)

step "base: Debian $suite"
# shellcheck disable=SC2016 # apt-get's own variable
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | head -1)
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
    "$suite" "$work/base" "$mirror" /usr/share/debootstrap/scripts/sid > "$work/debootstrap.log" ||
    { tail "$work/debootstrap.log"; fail debootstrap; }
rm -rf "$work"/base/var/cache/apt/archives/*.deb "$work"/base/var/lib/apt/lists/*
container=$(buildah from scratch)
buildah add -q "$container" "$work/base" / > /dev/null
buildah commit -q "$container" "localhost/python-base:$suite" > /dev/null
buildah rm "$container" > /dev/null
rm -rf "$work/base"

step build
# How this machine's pip reaches PyPI comes from outside and stays there: its configuration as a
# build secret, its CAs mounted over a file that the base has.
secret=()
[ ! -f /etc/pip.conf ] || secret=(--secret "id=pip.conf,src=/etc/pip.conf")
cas=/etc/ssl/certs/ca-certificates.crt
buildah build --layers --format docker --build-arg "PYTHON_IMAGE=localhost/python-base:$suite" \
    "${secret[@]}" --volume "$cas:$cas:ro" --tag "$image" "$project" > "$work/build.log" 2>&1 ||
    { tail -30 "$work/build.log"; fail build; }
buildah images --filter dangling=false
buildah inspect --type image "$image" | python3 -c '
import json, sys
image = json.load(sys.stdin)
sizes = iter(layer["size"] for layer in json.loads(image["Manifest"])["layers"])
for step in image["OCIv1"]["history"]:
    size = 0 if step.get("empty_layer") else next(sizes)
    made_by = step.get("created_by", "").removeprefix("/bin/sh -c ").removeprefix("#(nop) ")
    print(f"{size:>11,} B  {made_by[:90]}")
'

step "nothing in it that should not be"
container=$(buildah from "$image")
root=$(buildah mount "$container")
found=$(find "$root/app" \( -name '.*' -o -name tests -o -name '*.sqlite3' -o -name secret_key \) -print)
[ -z "$found" ] || fail "in /app: $found"
found=$(find "$root" -xdev -name pip.conf -print)
[ -z "$found" ] || fail "pip's configuration: $found"
found=$(find "$root/app" "$root/opt" -xdev ! -type l \( -perm /022 -o ! -user root \) -print)
[ -z "$found" ] || fail "not root's alone to write: $found"
buildah rm "$container" > /dev/null

# What `docker run` would be given, but for the first line: this machine has no bridge network,
# and may not raise limits.
run=(--network host --ulimit nofile=1024:1024 --ulimit nproc=1024:1024
    --read-only --read-only-tmpfs=false)

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

wait_until_healthy() {
    for _ in $(seq 100); do
        ! engine healthcheck run "$1" > /dev/null 2>&1 || return 0
        sleep 0.1
    done
    engine logs "$1"
    fail "$1 is not healthy"
}

four_requests() { # PORT HOST KEY
    local statuses
    statuses=$(for _ in 1 2 3 4; do
        curl -s -o /dev/null -w '%{http_code} ' -H "Host: $2" -H "Authorization: Bearer $3" \
            "http://127.0.0.1:$1/"
    done)
    echo "$statuses"
    [ "$statuses" = "200 200 200 429 " ] || fail "expected 200 200 200 429"
}

stop() {
    local began=$SECONDS
    engine stop --time 10 "$1" > /dev/null
    [ "$(engine inspect "$1" --format '{{.State.ExitCode}}')" = 0 ] || fail "$1 did not end with 0"
    [ $((SECONDS - began)) -le 5 ] || fail "$1 took $((SECONDS - began)) s to stop"
    engine rm "$1" > /dev/null
}

step "python manage.py up, with its embedded store"
port=$(free_port)
engine run --detach --name up "${run[@]}" --env "PORT=$port" "$image" python manage.py up > /dev/null
wait_until_healthy up
for _ in $(seq 50); do engine logs up 2>&1 | grep -q '^curl' && break; sleep 0.1; done
engine exec up id
four_requests "$port" localhost "$(engine logs up 2>&1 | sed -n 's/^Key *//p')"
! engine exec up touch /app/x /x 2> /dev/null || fail "the root can be written"
stop up

step "gunicorn, with PostgreSQL and Redis"
mkdir "$work/pg"
chown postgres "$work/pg"
sql_port=$(free_port)
as_postgres initdb -D "$work/pg/data" -A trust > /dev/null
as_postgres pg_ctl -D "$work/pg/data" -l "$work/pg/log" -w start \
    -o "-p $sql_port -k $work/pg -c listen_addresses=127.0.0.1" > /dev/null
as_postgres createdb -h "$work/pg" -p "$sql_port" hello
redis_port=$(free_port)
redis-server --bind 127.0.0.1 --port "$redis_port" --save '' --daemonize yes --dir "$work" \
    --pidfile "$work/redis.pid" --logfile "$work/redis.log" > /dev/null
python3 -c 'import secrets; print(secrets.token_urlsafe(60))' > "$work/secret_key"
port=$(free_port)
run+=(--env "DATABASE_URL=postgres://postgres@127.0.0.1:$sql_port/hello"
    --env "REDIS_URL=redis://127.0.0.1:$redis_port/0" --env ALLOWED_HOSTS=api.example.com
    --env SECRET_KEY_FILE=/run/secrets/secret_key --env "PORT=$port"
    --volume "$work/secret_key:/run/secrets/secret_key:ro")
engine run --rm "${run[@]}" "$image" python manage.py check --deploy --fail-level WARNING
engine run --rm "${run[@]}" "$image" python manage.py migrate | tail -1
key=$(engine run --rm "${run[@]}" "$image" python manage.py issue_key first 2> /dev/null)
engine run --detach --name web "${run[@]}" "$image" > /dev/null
wait_until_healthy web
engine top web user args
curl -sf "http://127.0.0.1:$port/readyz"
echo
four_requests "$port" api.example.com "$key"
stop web

step "without its settings it says what is missing"
! engine run --rm --network host --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 "$image" ||
    fail "started without SECRET_KEY"

step "all as it should be"
