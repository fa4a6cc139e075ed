"""`python -m bench [name ...] [--runs N] [--json]`: our work beside what a person would run instead, on the same data.

Names: listing, sandbox, find_missing, changed, bring_back, backups, drill; all of them without a name. Exit code 1 if a
target was missed.
Big data is made once and kept in the folder BLOOM_DR_BENCH if that is set, otherwise made anew in a temporary folder.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys

from rich.console import Console

from bench.comparison import Comparison, as_json, show

NAMES = ("listing", "sandbox", "find_missing", "changed", "bring_back", "backups", "drill")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(NAMES), default=[])
    parser.add_argument("--runs", type=int, default=5, help="measured runs of each command (5)")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    story = Console(stderr=True)
    results: list[Comparison] = []
    for name in asked.names or NAMES:
        results.extend(
            importlib.import_module(f"bench.{name}").run(asked.runs, lambda line: story.print(line, style="dim"))
        )
    if asked.json:
        print(json.dumps(as_json(results), indent=2))
    else:
        show(results, Console())
    return 0 if all(target.met for result in results for target in result.targets) else 1


if __name__ == "__main__":
    sys.exit(main())
