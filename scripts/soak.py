"""Real machines under load and random kills; says what was lost (nothing may be).

make soak MINUTES=60 [MACHINES=4] [SEED=…]
"""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.soak.run import soak  # noqa: E402 - the tests' folder is no package of the product


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--machines", type=int, default=4, help="at once, of 112 MiB [4]")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="of what is chosen")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    tally = soak(
        ROOT / ".hyperfleet",
        seconds=arguments.minutes * 60,
        machines=arguments.machines,
        seed=arguments.seed,
    )
    print(tally.text())
    return 0 if tally.passed else 1


if __name__ == "__main__":
    sys.exit(main())
