# SPDX-License-Identifier: Apache-2.0
"""Prints what failed, why most were skipped, and a closing line for a folder of JUnit results. Called by ./dev test.

The closing line: N passed, N failed, N skipped.

gpu.txt, if present, is `ctest -N -L gpu`: tests that were left out because no GPU is here. They count as skipped.
"""

import collections
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree


def count(results: pathlib.Path) -> tuple[dict[str, int], list[str], collections.Counter]:
    """How many, the names of those that failed, and how many were skipped for which reason."""
    total, failed, reasons = {"passed": 0, "failed": 0, "skipped": 0}, [], collections.Counter()
    for file in sorted(results.glob("*.xml")):
        for case in ElementTree.parse(file).iter("testcase"):
            # pytest writes child elements; ctest also writes status="notrun" for skipped and disabled tests
            if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
                total["failed"] += 1
                failed.append("::".join(dict.fromkeys((case.get("classname", ""), case.get("name", "")))))
            elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
                total["skipped"] += 1
                skipped = case.find("skipped[@type='pytest.skip']")
                reasons["see ctest's output" if skipped is None else skipped.get("message", "")[:100]] += 1
            else:
                total["passed"] += 1
    gpu = results / "gpu.txt"
    if gpu.exists():
        left_out = int(re.search(r"Total Tests: (\d+)", gpu.read_text())[1])
        total["skipped"] += left_out
        reasons["no GPU here"] += left_out
    return total, failed, reasons


if __name__ == "__main__":
    total, failed, reasons = count(pathlib.Path(sys.argv[1]))
    for name in failed:
        print(f"failed: {name}")
    for why, number in reasons.most_common(5):
        print(f"skipped, {number}: {why}")
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**total))
    sys.exit(total["failed"] > 0 or total["passed"] == 0)
