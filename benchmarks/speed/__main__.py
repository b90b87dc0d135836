"""Speed on the CPU beside what people use otherwise: `make bench`, or `python -m benchmarks.speed [PART ...]`.

What is compared is measured in turn in one run, with as many threads as the process may use cores (`taskset -c 0`
gives it one), so a ratio holds on a busy machine too. OpenVINO and LitServe are compared with where they are installed
(benchmarks/requirements.txt).
"""

import argparse
import importlib
import os
import sys

from benchmarks.figures import report

PARTS = ("inference", "serving", "scaling", "training", "command_line")


def main(arguments: list[str] | None = None) -> int:
    """Measure the parts and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="one small case of each part: shows that it works")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: the parts are {', '.join(PARTS)}")
    threads = len(os.sched_getaffinity(0))
    for part in asked.parts or PARTS:
        measured = importlib.import_module(f"benchmarks.speed.{part}").measure(threads=threads, quick=asked.quick)
        report(f"{part}, {threads} thread(s)", measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
