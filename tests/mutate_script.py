"""Break the limiter's script in one place after the other and expect the tests to notice.

    python tests/mutate_script.py

Each mutation is applied to a copy of the project, where tests/throttling/test_limiter.py runs on
the embedded Valkey until its first failure. Ends with 1 when a mutation survives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
SCRIPT = Path("throttling") / "sliding_window.lua"

# What is broken, what stands in the script, what stands there instead.
# fmt: off
MUTATIONS = [
    ("one slot fewer counted", "slot >= current - slots", "slot > current - slots"),
    ("one slot more counted", "slot >= current - slots", "slot >= current - slots - 1"),
    ("newest slot dropped a slot early", "newest < current - slots", "newest <= current - slots"),
    ("newest slot dropped a slot late", "newest < current - slots", "newest < current - slots - 1"),
    ("admits one above the limit", "if used + cost > limit", "if used + cost > limit + 1"),
    ("refuses the last unit", "if used + cost > limit", "if used + cost >= limit"),
    ("cost ignored in the decision", "if used + cost > limit", "if used + 1 > limit"),
    ("cost ignored in the count", "used = used + cost\n", "used = used + 1\n"),
    ("slot's cost not added up", "newest_cost + cost))", "cost))"),
    ("written in place in a new slot", "if oldest and newest == current then", "if oldest then"),
    ("never written in place", "if oldest and newest == current then", "if false then"),
    ("cost of the slot before added on", "pack(HEADER, current, used, cost)", "pack(HEADER, current, used, newest_cost + cost)"),
    ("the slot before forgotten", "string.sub(state, from) .. pack(PAIR, newest % 256, newest_cost)", "string.sub(state, from)"),
    ("the slot before kept out of order", "string.sub(state, from) .. pack(PAIR, newest % 256, newest_cost)", "pack(PAIR, newest % 256, newest_cost) .. string.sub(state, from)"),
    ("earlier slots forgotten", "string.sub(state, from) .. pack", "pack"),
    ("cost of what left kept", "    used = 0\n", ""),
    ("what left taken up again", "    used = 0\n  else\n    oldest, to = newest, #state", "    used = 0\n  end do\n    oldest, to = newest, #state"),
    ("a slot's later hits not counted", "    call('SETRANGE', KEYS[1], 0, pack(HEADER, current, used, newest_cost + cost))", ""),
    ("dropped cost still in use", "used = used - slot_cost", "used = used"),
    ("drops only one slot", "from = from + pair_size\n", "from = from + pair_size break\n"),
    ("dropped slots written back", "string.sub(state, from)", "string.sub(state, header_size + 1)"),
    ("clock going back believed", "if newest > current then current = newest end", ""),
    ("pairs read as the newest slot's", "local slot = newest - (newest - low) % 256", "local slot = newest"),
    ("no expiry", "'PSETEX', KEYS[1], current * slot_ms + leaves + grace,", "'SET', KEYS[1],"),
    ("expiry a slot early", "local leaves = (slots + 1) * slot_ms - now", "local leaves = slots * slot_ms - now"),
    ("expiry from the oldest slot", "current * slot_ms + leaves + grace", "(oldest or current) * slot_ms + leaves + grace"),
    ("expiry a window late", "+ leaves + grace", "+ leaves + grace + slots * slot_ms"),
    ("expiry under a caller's clock too early", "now, grace = ARGV[2] + 0, 3600000", "now, grace = ARGV[2] + 0, -1"),
    ("a refused hit is counted", "return pack('>I4I8I8', limit - used, last", "call('SET', KEYS[1], pack(HEADER, current, used, newest_cost) .. string.sub(state, from))\n  return pack('>I4I8I8', limit - used, last"),
    ("a refused hit extends the expiry", "return pack('>I4I8I8', limit - used, last", "call('PEXPIRE', KEYS[1], 999999)\n  return pack('>I4I8I8', limit - used, last"),
    ("a look is counted", "if cost > 0 then", "if cost >= 0 then"),
    ("retry after frees too little", "if still_used + cost <= limit then", "if still_used <= limit then"),
    ("retry after frees too much", "if still_used + cost <= limit then", "if still_used + cost < limit then"),
    ("retry after is reset after", "last * slot_ms + leaves, oldest", "oldest * slot_ms + leaves, oldest"),
    ("retry after a millisecond short", "last * slot_ms + leaves, oldest", "last * slot_ms + leaves - 1, oldest"),
    ("reset after the newest slot", "0, oldest and oldest * slot_ms", "0, oldest and current * slot_ms"),
    ("reset after without use", "oldest * slot_ms + leaves or 0)", "oldest * slot_ms + leaves or leaves)"),
    ("remaining before the hit", "limit - used, 0,", "limit - used + cost, 0,"),
    ("seconds for milliseconds", "time[1] * 1000 + time[2] / 1000", "time[1] * 1 + time[2] / 1000"),
    ("microseconds forgotten", "time[1] * 1000 + time[2] / 1000", "time[1] * 1000"),
    ("fractions of a millisecond kept", "now = now - now % 1\n", "now = now + 0.9\n"),
    ("slots rounded up", "(now - now % slot_ms) / slot_ms", "(now - now % slot_ms) / slot_ms + 1"),
    ("a byte for limits up to 256", "elseif limit > 255", "elseif limit > 256"),
    ("two bytes for limits up to 65536", "if limit > 65535", "if limit > 65536"),
]
# fmt: on


def main() -> int:
    script = (PROJECT / SCRIPT).read_text()
    for name, old, _ in MUTATIONS:
        if old not in script:
            print(f"stale: {name}: the script has no {old!r}")
            return 1
    if not passes(script):
        print("The tests fail on the script as it is: nothing can be learnt from mutations.")
        return 1
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        results = executor.map(lambda m: passes(script.replace(m[1], m[2], 1)), MUTATIONS)
        survivors = []
        for (name, _, _), survived in zip(MUTATIONS, results, strict=True):
            print(f"{'SURVIVED' if survived else 'noticed '}  {name}", flush=True)
            survivors += [name] if survived else []
    print(f"{len(MUTATIONS) - len(survivors)} of {len(MUTATIONS)} mutations noticed.")
    return 1 if survivors else 0


def passes(script: str) -> bool:
    """Whether the limiter's tests pass with this script."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        left_out = shutil.ignore_patterns(".git", ".venv", "var", "__pycache__", ".*_cache")
        shutil.copytree(PROJECT, copy, ignore=left_out)
        (copy / SCRIPT).write_text(script)
        # The slow comparison with the reference only for what the others have not noticed.
        return tests_pass(copy, "not redis7 and not slow") and tests_pass(
            copy, "not redis7 and slow"
        )


def tests_pass(project: Path, tests: str) -> bool:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-k", tests]
    result = subprocess.run(
        [*command, "tests/throttling/test_limiter.py"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode not in (0, 1):  # 1: a test failed; anything else: none could run.
        sys.exit(result.stdout + result.stderr)
    return result.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
