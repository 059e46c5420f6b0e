"""What grows with the clients, the keys and the limits, and what does not.

    python3 benchmarks/growth.py [--quick]

Loads this project with wrk, with few and with many clients and keys, in rounds; asks the limiter
under small and large limits; and fills stores to see what a client takes. A full run takes a
quarter of an hour and writes its part of docs/performance.md, and docs/growth.svg.
"""

from __future__ import annotations

import argparse
import sys

import own_venv
import wrk
from report import Progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="smaller numbers, within 3 minutes; writes nothing"
    )
    is_quick = parser.parse_args().quick
    own_venv.enter()
    wrk.check()
    import growth_page
    from growth_run import FULL, QUICK, run

    measured = run(QUICK if is_quick else FULL)
    if is_quick:
        print("Quick: fewer clients, keys and rounds than the whole; too few for all columns.\n")
    print(growth_page.plain(measured))
    if not is_quick:
        growth_page.write(measured)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        Progress.end()
        sys.exit(130)
