# SPDX-License-Identifier: Apache-2.0
"""Prints one closing line for a folder of JUnit results: N passed, N failed, N skipped. Called by ./dev test.

gpu.txt, if present, is `ctest -N -L gpu`: tests that were left out because no GPU is here. They count as skipped.
"""

import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree


def count(results: pathlib.Path) -> dict[str, int]:
    total = {"passed": 0, "failed": 0, "skipped": 0}
    for file in sorted(results.glob("*.xml")):
        for case in ElementTree.parse(file).iter("testcase"):
            # pytest writes child elements; ctest also writes status="notrun" for skipped and disabled tests
            if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
                total["failed"] += 1
            elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
                total["skipped"] += 1
            else:
                total["passed"] += 1
    gpu = results / "gpu.txt"
    if gpu.exists():
        total["skipped"] += int(re.search(r"Total Tests: (\d+)", gpu.read_text())[1])
    return total


if __name__ == "__main__":
    total = count(pathlib.Path(sys.argv[1]))
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**total))
    sys.exit(total["failed"] > 0 or total["passed"] == 0)
