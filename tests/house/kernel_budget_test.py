# SPDX-License-Identifier: Apache-2.0
"""What tools/kernel_budget.py makes of tables that differ from the golden."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import kernel_budget as budget  # noqa: E402

ROW = ("sm_90a", "rmsnorm x=float32 vec=4")
GOLDEN = {ROW: (32, 16, 0, 0, 200.0)}
NONE = budget.Exceptions("")


def complaints(now: tuple, golden: dict = GOLDEN, excepted: budget.Exceptions = NONE) -> str:
    return "\n".join(budget.problems({ROW: now}, golden, excepted))


def main() -> None:
    assert complaints((32, 16, 0, 0, 200)) == ""
    assert complaints((40, 16, 0, 0, 3999)) == "", "other compilers and other work are allowed for"
    assert "41 registers" in complaints((41, 16, 0, 0, 200))
    assert "17 bytes shared" in complaints((32, 17, 0, 0, 200))
    assert "8 bytes of local memory" in complaints((32, 16, 8, 0, 200))
    assert "4 bytes spilled" in complaints((32, 16, 0, 4, 200))
    assert "4001 ms" in complaints((32, 16, 0, 0, 4001))
    assert "--update adds it" in complaints((32, 16, 0, 0, 200), {})

    def slow_again(*times: float) -> budget.Table:
        """What becomes of a compile of 5 s whose next ones take these."""
        left = iter(times)
        return budget.slow_again({ROW: (32, 16, 0, 0, 5000.0)}, GOLDEN, NONE,
                                 lambda rows: {row: (32, 16, 0, 0, next(left)) for row in rows})

    assert slow_again(4500.0, 3000.0) == {ROW: (32, 16, 0, 0, 3000.0)}
    assert slow_again(3000.0) == {ROW: (32, 16, 0, 0, 3000.0)}, "compiled no more often than needed"
    assert "5000 ms" in "\n".join(budget.problems(slow_again(6000.0, 6000.0), GOLDEN, NONE)), "always slow"

    lines = ("# except\tmemory\tsm_90a\trmsnorm \twhy", "# except\tseconds\t*\trmsnorm x=float32 \twhy")
    known = budget.Exceptions("\n".join(lines))
    spills = {ROW: (32, 16, 8, 4, 3000.0)}
    assert complaints((32, 16, 8, 4, 5999), spills, known) == ""
    assert "9 bytes of local" in complaints((32, 16, 9, 4, 200), spills, known)
    assert "6001 ms" in complaints((32, 16, 8, 4, 6001), spills, known)
    assert budget.slow_ones(spills, NONE) and not budget.slow_ones(spills, known)
    assert not known.has("memory", ("sm_80", ROW[1])) and not known.has("seconds", ("sm_80", "rmsnorm x=float16"))
    assert "no longer needed: # except\tseconds" in budget.summary(GOLDEN, GOLDEN, known)

    rows = [("a", str(i)) for i in range(10)]
    assert sorted(sum((budget.part_of(rows, f"{i}/3") for i in (1, 2, 3)), [])) == rows
    golden = (ROOT / "aot" / "budget.tsv").read_text()
    assert not budget.slow_ones(budget.parse(golden), budget.Exceptions(golden))


if __name__ == "__main__":
    main()
