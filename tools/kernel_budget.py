#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compiles kernels for every architecture and compares what the compiler says with a golden table.

Fails where a kernel uses local memory or spills, or needs more registers, shared memory or, clearly, compile time than
the golden allows. No GPU is needed; NVRTC is. Without NVRTC it says so and passes. Compile time is processor time,
which other work on the machine makes longer: it may be twice what is allowed, and what takes longer is compiled up to
two times more, one kernel after the other, of which the shortest counts.

The golden's lines "# except" are what is known and why it stays: the time that kernels whose keys begin so take, or
their local memory, may be the golden's own (memory: not a byte more).

usage: kernel_budget.py --pack-tool build/release/fulmen_pack [--update] [--arch sm_90a,…] [--keys FILE] [--part 1/3]
"""
import argparse
import datetime
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = ROOT / 'aot' / 'budget.tsv'
ARCHS = 'sm_75,sm_80,sm_86,sm_89,sm_90a,sm_100a,sm_103a,sm_110a,sm_120a,sm_121a'
FIELDS = ('registers', 'shared', 'stack', 'spill', 'ms')
REGISTER_SLACK = 8      # compilers of other minor versions differ by a few
MS_ALLOWED = 2000       # for any one kernel on a machine without other work
MS_FACTOR = 2           # what other work may add to it, and a fast machine's golden to a slow one's

Row = tuple[str, str]  # architecture, key
Table = dict[Row, tuple[int, int, int, int, float]]


def parse(text: str) -> Table:
    table = {}
    for line in text.splitlines():
        if line and not line.startswith('#'):
            arch, key, *numbers = line.split('\t')
            table[arch, key] = (*map(int, numbers[:4]), float(numbers[4]))
    return table


class Exceptions:
    """Lines `# except<TAB>seconds or memory<TAB>architecture or *<TAB>how keys begin<TAB>reason` of the golden."""

    def __init__(self, text: str) -> None:
        self.lines = [line for line in text.splitlines() if line.startswith('# except\t')]
        self.rows = [tuple(line.split('\t')[1:5]) for line in self.lines]

    def has(self, what: str, row: Row) -> bool:
        arch, key = row
        return any(w == what and a in ('*', arch) and (key + ' ').startswith(begin) for w, a, begin, _ in self.rows)


def sample(lines: list[str]) -> list[str]:
    """Per op and dtype the kernel that holds most: enough to see a change, few enough for every architecture."""
    chosen: dict[tuple[str, str], str] = {}
    for line in lines:
        words = line.split()
        chosen[words[0], words[1]] = line  # keys go from small to large
    return sorted(chosen.values())


def head_of_git() -> str:
    """The commit, empty where there is none, or no git."""
    try:
        done = subprocess.run(['git', '-C', ROOT, 'rev-parse', 'HEAD'], capture_output=True, text=True)
    except OSError:
        return ''
    return done.stdout.strip() if done.returncode == 0 else ''


def part_of(rows: list[Row], part: str) -> list[Row]:
    """Every third row, say, of "1/3"; "auto/3": another third for each commit, so that all are looked at in turn."""
    which, number = part.split('/')
    if which == 'auto':
        head = head_of_git()
        chosen = int(head, 16) if head else datetime.date.today().toordinal()
        which = str(chosen % int(number) + 1)
        print(f'kernel_budget: part {which} of {number}, chosen by the commit; --part {which}/{number} repeats it')
    return rows[int(which) - 1::int(number)]


def measure(tool: str, rows: list[Row], jobs: tuple[str, ...] = ()) -> Table:
    found: Table = {}
    for arch in sorted({arch for arch, _ in rows}):
        keys = [key for a, key in rows if a == arch]
        with tempfile.TemporaryDirectory() as folder:
            keys_file, report = pathlib.Path(folder, 'keys'), pathlib.Path(folder, 'report')
            keys_file.write_text('\n'.join(keys) + '\n')
            done = subprocess.run([tool, 'build', '--arch', arch, '--keys', keys_file, '--all', '--out',
                                   f'{folder}/pack', '--report', report, *jobs], capture_output=True, text=True)
            if 'NVRTC cannot be opened' in done.stderr:
                print('kernel_budget: skipped, this machine has no NVRTC')
                sys.exit(0)
            if done.returncode != 0:
                sys.exit(f'kernel_budget: {done.stdout}{done.stderr}')
            found |= parse(report.read_text())
    return found


def allowed_ms(row: Row, golden: Table, excepted: Exceptions) -> float:
    known = golden[row][4] if row in golden and excepted.has('seconds', row) else 0
    return max(MS_ALLOWED, known) * MS_FACTOR


def slow_again(now: Table, golden: Table, excepted: Exceptions, compile_rows: Callable[[list[Row]], Table]) -> Table:
    """`now`, with the shortest of up to three compile times for what took too long: one may meet a busy machine."""
    for _ in range(2):
        slow = [row for row, numbers in sorted(now.items()) if numbers[4] > allowed_ms(row, golden, excepted)]
        if slow:
            print(f'kernel_budget: again, as it took too long: {"; ".join(" ".join(row) for row in slow)}')
            again = compile_rows(slow)
            now = now | {row: (*again[row][:4], min(again[row][4], now[row][4])) for row in slow}
    return now


def problems(now: Table, golden: Table, excepted: Exceptions) -> list[str]:
    found = []
    for row, (registers, shared, stack, spill, ms) in sorted(now.items()):
        name = ' '.join(row)
        before = golden.get(row)
        if before is None:
            found.append(f'{name}: is not in {GOLDEN.relative_to(ROOT)}; --update adds it')
            before = (255, shared, 0, 0, ms)
        known = before[2:4] if excepted.has('memory', row) else (0, 0)
        if stack > known[0] or spill > known[1]:
            found.append(f'{name}: {stack} bytes of local memory and {spill} bytes spilled, expected {known}')
        allowed = allowed_ms(row, golden, excepted)
        if ms > allowed:
            found.append(f'{name}: {ms:.0f} ms of compile time, expected less than {allowed:.0f}')
        if registers > before[0] + REGISTER_SLACK or shared > before[1]:
            found.append(f'{name}: {registers} registers and {shared} bytes shared, were {before[0]} and {before[1]}')
    return found


def slow_ones(golden: Table, excepted: Exceptions) -> list[str]:
    """What no exception speaks of, in the golden itself."""
    return [f'{" ".join(row)}: the golden holds {numbers[4]:.0f} ms of compile time, expected {MS_ALLOWED} or less; '
            'make it faster or write down why it stays' for row, numbers in sorted(golden.items())
            if numbers[4] > MS_ALLOWED and not excepted.has('seconds', row)]


def summary(now: Table, golden: Table, excepted: Exceptions) -> str:
    ms = sorted(numbers[4] for numbers in now.values())
    beyond = sum(t > MS_ALLOWED for t in ms)
    unused = [line for line, (what, *_) in zip(excepted.lines, excepted.rows) if what == 'seconds' and not any(
        numbers[4] > MS_ALLOWED and Exceptions(line).has(what, row) for row, numbers in golden.items())]
    return '\n'.join([
        f'kernel_budget: {len(now)} kernels on {len({arch for arch, _ in now})} architectures, '
        f'{sum(ms) / 1000:.0f} s of processor time; one takes {ms[len(ms) // 2] / 1000:.2f} s (median) to '
        f'{ms[-1] / 1000:.2f} s, {beyond} more than {MS_ALLOWED / 1000:.0f} s',
        *(f'kernel_budget: no longer needed: {line}' for line in unused)])


def write(table: Table, excepted: Exceptions) -> None:
    lines = ['# What the compiler says about each kernel: tools/kernel_budget.py --update writes this file.',
             *excepted.lines, '# arch\tkey\t' + '\t'.join(FIELDS)]
    lines += ['\t'.join([arch, key, *map(str, numbers[:4]), f'{numbers[4]:.0f}'])
              for (arch, key), numbers in sorted(table.items())]
    GOLDEN.write_text('\n'.join(lines) + '\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--pack-tool', default=os.environ.get('FULMEN_PACK_TOOL', 'build/release/fulmen_pack'))
    parser.add_argument('--arch', default=ARCHS)
    parser.add_argument('--keys', type=pathlib.Path, help='all of these, instead of a sample of the common ones')
    parser.add_argument('--update', action='store_true')
    parser.add_argument('--part', help='1/3: the first third of them; auto/3: the third that the commit chooses')
    args = parser.parse_args()

    usual = subprocess.run([args.pack_tool, 'keys'], capture_output=True, text=True, check=True).stdout.splitlines()
    listed = args.keys.read_text().splitlines() if args.keys else sample(usual)
    keys = [k for k in listed if k and not k.startswith('#')]
    rows = [(arch, key) for key in keys for arch in args.arch.split(',')]
    now = measure(args.pack_tool, part_of(rows, args.part) if args.part else rows)
    text = GOLDEN.read_text() if GOLDEN.exists() else ''
    excepted = Exceptions(text)
    if args.update:  # rows of keys that are no longer usual go
        write({row: numbers for row, numbers in parse(text).items() if row[1] in usual} | now, excepted)
    golden = parse(GOLDEN.read_text()) if GOLDEN.exists() else {}
    now = slow_again(now, golden, excepted, lambda slow: measure(args.pack_tool, slow, ('--jobs', '1')))
    print(summary(now, golden, excepted))
    found = problems(now, golden, excepted) + slow_ones(golden, excepted)
    print(*found, sep='\n')
    sys.exit(1 if found else 0)


if __name__ == '__main__':
    main()
