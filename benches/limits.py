"""Holds the program against its limits: start, check, a cached run, the whole of digits.toml. Prints ratios.

    cargo build --release && python3 benches/limits.py target/release/ropeway
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DIGITS = os.path.join(ROOT, "configs", "digits.toml")


def once(command, folder):
    """Seconds and peak MB of one process."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    assert os.waitstatus_to_exitcode(status) == 0, command
    return seconds, usage.ru_maxrss / 1000


def show(name, rounds, limit, command, folder):
    measured = [once(command, folder) for _ in range(rounds)]
    seconds = statistics.median(seconds for seconds, _ in measured)
    peak = max(peak for _, peak in measured)
    print(f"{name:<14} {seconds * 1e3:9.1f} ms  {seconds / limit:5.2f} of its limit   peak {peak:6.1f} MB")
    return peak


def main():
    program = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        show("start", 21, 0.010, [program, "--version"], folder)
        show("check", 21, 0.020, [program, "check", DIGITS], folder)
        peak = show("digits, fresh", 1, 45, [program, "run", DIGITS], folder)
        show("digits, cached", 21, 0.100, [program, "run", DIGITS], folder)
        print(f"peak of a fresh run: {peak / 200:.2f} of 200 MB; the binary has {os.path.getsize(program) / 1e6:.0f} MB")


main()
