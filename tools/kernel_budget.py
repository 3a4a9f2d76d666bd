#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compiles kernels for every architecture and compares what the compiler says with a golden table.

Fails where a kernel uses local memory or spills, or needs more registers, shared memory or compile time than the golden
allows. No GPU is needed; NVRTC is. Without NVRTC it says so and passes.

usage: kernel_budget.py --pack-tool build/release/fulmen_pack [--update] [--arch sm_90a,…] [--keys FILE]
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = ROOT / 'aot' / 'budget.tsv'
ARCHS = 'sm_75,sm_80,sm_86,sm_89,sm_90a,sm_100a,sm_103a,sm_110a,sm_120a,sm_121a'
FIELDS = ('registers', 'shared', 'stack', 'spill', 'ms')
REGISTER_SLACK = 8      # compilers of other minor versions differ by a few
SECONDS_ALLOWED = 2.0   # processor time for any one kernel; the golden's own time is for people

Table = dict[tuple[str, str], tuple[int, int, int, int, float]]


def parse(text: str) -> Table:
    table = {}
    for line in text.splitlines():
        if line and not line.startswith('#'):
            arch, key, *numbers = line.split('\t')
            table[arch, key] = (*map(int, numbers[:4]), float(numbers[4]))
    return table


def sample(lines: list[str]) -> list[str]:
    """Per op and dtype the kernel that holds most: enough to see a change, few enough for every architecture."""
    chosen: dict[tuple[str, str], str] = {}
    for line in lines:
        words = line.split()
        chosen[words[0], words[1]] = line  # keys go from small to large
    return sorted(chosen.values())


def measure(tool: str, archs: str, keys: list[str]) -> Table:
    with tempfile.TemporaryDirectory() as folder:
        keys_file, report = pathlib.Path(folder, 'keys'), pathlib.Path(folder, 'report')
        keys_file.write_text('\n'.join(keys) + '\n')
        done = subprocess.run([tool, 'build', '--arch', archs, '--keys', keys_file, '--out', f'{folder}/pack',
                               '--report', report], capture_output=True, text=True)
        if 'NVRTC cannot be opened' in done.stderr:
            print('kernel_budget: skipped, this machine has no NVRTC')
            sys.exit(0)
        if done.returncode != 0:
            sys.exit(f'kernel_budget: {done.stdout}{done.stderr}')
        print(done.stdout.strip())
        return parse(report.read_text())


def problems(now: Table, golden: Table) -> list[str]:
    found = []
    for (arch, key), (registers, shared, stack, spill, ms) in sorted(now.items()):
        name = f'{arch} {key}'
        if stack or spill:
            found.append(f'{name}: {stack} bytes of local memory, {spill} bytes spilled')
        if ms > SECONDS_ALLOWED * 1000:
            found.append(f'{name}: {ms:.0f} ms of compile time')
        if (arch, key) not in golden:
            found.append(f'{name}: is not in {GOLDEN.relative_to(ROOT)}; --update adds it')
            continue
        before = golden[arch, key]
        if registers > before[0] + REGISTER_SLACK or shared > before[1]:
            found.append(f'{name}: {registers} registers and {shared} bytes shared, were {before[0]} and {before[1]}')
    return found


def write(table: Table) -> None:
    lines = ['# What the compiler says about each kernel: tools/kernel_budget.py --update writes this file.',
             '# arch\tkey\t' + '\t'.join(FIELDS)]
    lines += ['\t'.join([arch, key, *map(str, numbers[:4]), f'{numbers[4]:.0f}'])
              for (arch, key), numbers in sorted(table.items())]
    GOLDEN.write_text('\n'.join(lines) + '\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--pack-tool', default=os.environ.get('FULMEN_PACK_TOOL', 'build/release/fulmen_pack'))
    parser.add_argument('--arch', default=ARCHS)
    parser.add_argument('--keys', type=pathlib.Path, help='all of these, instead of a sample of the common ones')
    parser.add_argument('--update', action='store_true')
    args = parser.parse_args()

    usual = subprocess.run([args.pack_tool, 'keys'], capture_output=True, text=True, check=True).stdout.splitlines()
    listed = args.keys.read_text().splitlines() if args.keys else sample(usual)
    keys = [k for k in listed if k and not k.startswith('#')]
    now = measure(args.pack_tool, args.arch, keys)
    if args.update:  # rows of keys that are no longer usual go
        before = parse(GOLDEN.read_text()) if GOLDEN.exists() else {}
        write({row: numbers for row, numbers in before.items() if row[1] in usual} | now)
    found = problems(now, parse(GOLDEN.read_text()) if GOLDEN.exists() else {})
    print(*found, sep='\n')
    sys.exit(1 if found else 0)


if __name__ == '__main__':
    main()
