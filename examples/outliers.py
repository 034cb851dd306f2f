"""A stage in Python: rows come in on stdin and go out on stdout as Arrow IPC streams.

The pipeline gives parameters as JSON in ROPEWAY_PARAMS and the seed in ROPEWAY_SEED; stderr is the stage's log.
"""

import json
import os
import sys

import numpy as np
import pyarrow as pa
from sklearn.ensemble import IsolationForest

rows = pa.ipc.open_stream(sys.stdin.buffer).read_all()
params = json.loads(os.environ["ROPEWAY_PARAMS"])
seed = int(os.environ["ROPEWAY_SEED"]) % 2**32

columns = [name for name in rows.column_names if name != params["target"]]
features = np.column_stack([rows[name].to_numpy() for name in columns])
forest = IsolationForest(n_estimators=params["trees"], random_state=seed).fit(features)
print(f"fitted {params['trees']} trees to {len(features)} rows", file=sys.stderr)

scored = rows.append_column("outlier", pa.array(-forest.score_samples(features)))
with pa.ipc.new_stream(sys.stdout.buffer, scored.schema) as out:
    out.write_table(scored)
