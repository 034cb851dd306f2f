"""Trains on two workers, beside PyTorch's DistributedDataParallel on two ranks with gloo.

    ../peers/bin/python benches/peers/together.py target/release/ropeway data/fashion [mlp cnn]

Data, first weights and settings are those of training.py, which says how to get what is needed. Each worker and each
rank has one thread and half of every batch. Losses are compared first; then both train in turns, and medians are shown:
samples a second of the training (PyTorch's without start, imports and loading, between two barriers; Ropeway's are all
of the stage `train`), the whole time, and the peak of the memory of all processes together. It is also checked that
two workers give the bytes of one.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from training import (CASES, EPOCH_TOLERANCE, FILES, HERE, ROUNDS, asked, curve, examples, first_weights, largest_gap,
                      model, prepare, ratio)

RANKS = 2


def rank(case, folder, first, epochs, settings):
    """One of PyTorch's ranks; the first prints losses and seconds as JSON."""
    import torch
    import torch.distributed as dist
    from torch.nn import functional
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    here, settings, batch = dist.get_rank(), settings.split(), CASES[case][0]
    rows, labels = examples(case, folder, settings, FILES[:2])
    net = model(case, first, settings)
    net = net.to(memory_format=torch.channels_last) if "last" in settings else net
    net = DistributedDataParallel(net, gradient_as_bucket_view=True, static_graph=True)
    how = {"fused": True} if "fused" in settings else {"foreach": True}
    if case == "cnn":
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, **how)
    else:
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, **how)
    curve = []
    dist.barrier()
    begun = time.perf_counter()
    for _ in range(epochs):
        total = torch.zeros(())
        for start in range(0, len(rows), batch):
            end = min(start + batch, len(rows))
            middle = (start + end) // 2
            mine = slice(start, middle) if here == 0 else slice(middle, end)
            loss = functional.cross_entropy(net(rows[mine]), labels[mine])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach() * (mine.stop - mine.start)
        dist.all_reduce(total)
        curve.append({"train.loss": total.item() / len(labels)})
    dist.barrier()
    if here == 0:
        print(json.dumps({"seconds": time.perf_counter() - begun, "curve": curve}))
    dist.destroy_process_group()


def proportional(process):
    """The memory of a process and its descendants, shared pages in parts, in MiB."""
    total, open_ = 0, [process]
    while open_:
        process = open_.pop()
        try:
            with open(f"/proc/{process}/smaps_rollup") as file:
                total += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
            with open(f"/proc/{process}/task/{process}/children") as file:
                open_ += map(int, file.read().split())
        except (OSError, StopIteration):
            pass  # it has ended
    return total / 1024


def measured(command, folder):
    """What a command printed; its wall seconds, and the peak of all its processes together."""
    begun, peak, over = time.perf_counter(), [0.0], threading.Event()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(command, cwd=folder, stdout=out, stderr=errors)

        def watch():
            while not over.wait(0.05):
                peak[0] = max(peak[0], proportional(child.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = child.wait()
        wall = time.perf_counter() - begun
        over.set(), watcher.join()
        out.seek(0), errors.seek(0)
        if code:
            sys.exit(f"{command} failed:\n{errors.read().decode()}")
        return out.read().decode(), {"wall": wall, "peak": peak[0]}


def ropeway(program, folder, case, epochs, workers):
    command = [program, "run", os.path.join(HERE, "training.toml"), "--only", case, "--format", "json",
               "--store", "memory://", "--set", f"{case}.epochs={epochs}", "--set", f"{case}.needs.workers={workers}"]
    command += ["--workers", str(workers)] if workers > 1 else ["--cores", "1"]
    said, used = measured(command, folder)
    stage = next(stage for stage in json.loads(said.splitlines()[-1])["stages"] if stage["name"] == case)
    return {"seconds": stage["seconds"], "outputs": stage["outputs"], **used}


def pytorch(case, folder, first, epochs, settings):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}",
               os.path.abspath(__file__), "--rank", case, folder, first, str(epochs), settings]
    said, used = measured(command, folder)
    return {**json.loads(said.splitlines()[-1]), **used}


def line(name, rounds, samples):
    middle = {key: statistics.median(one[key] for one in rounds) for key in ("seconds", "wall", "peak")}
    print(f"  {name:<30}{samples / middle['seconds']:>12,.0f}{middle['seconds']:>9.2f}{middle['wall']:>9.2f}"
          f"{middle['peak']:>9.0f}", flush=True)
    return middle["seconds"]


def run(program, case, data, folder):
    epochs, variants = CASES[case][1], [settings for settings in CASES[case][2] if "compiled" not in settings]
    prepare(folder, data)
    first, rows = first_weights(program, folder, case), curve(program, folder, case, epochs)
    gap = largest_gap(rows, pytorch(case, folder, first, epochs, variants[0])["curve"])
    print(f"{case}: losses of {epochs} epochs differ by {gap:.1e} of themselves at most ({variants[0]})")
    assert gap < EPOCH_TOLERANCE, "the losses are not the same"
    alone, ours, theirs = [], [], {settings: [] for settings in variants}
    for _ in range(ROUNDS):
        alone.append(ropeway(program, folder, case, epochs, 1))
        ours.append(ropeway(program, folder, case, epochs, RANKS))
        for settings in variants:
            theirs[settings].append(pytorch(case, folder, first, epochs, settings))
        assert ours[-1]["outputs"] == alone[-1]["outputs"], "two workers give other bytes than one"
    samples = 60_000 * epochs
    print(f"{case}, medians of {ROUNDS}{'':<12}samples/s  seconds    whole      MiB")
    line("Ropeway, one worker", alone, samples)
    line("Ropeway, two workers", ours, samples)
    best = min(theirs, key=lambda settings: line(f"PyTorch, two ranks, {settings}", theirs[settings], samples))
    speed = ratio(ours, theirs[best], "seconds")
    print(f"{case}: Ropeway / PyTorch on two ({best}): {speed:.2f} times the samples a second{asked(speed, 1.5)}, "
          f"1/{ratio(ours, theirs[best], 'peak'):.1f} of the memory, "
          f"1/{ratio(ours, theirs[best], 'wall'):.1f} of the whole time; "
          f"two workers / one: {ratio(ours, alone, 'seconds'):.2f}", flush=True)


if __name__ == "__main__" and sys.argv[1] == "--rank":
    rank(*sys.argv[2:5], int(sys.argv[5]), sys.argv[6])
elif __name__ == "__main__":
    for case in sys.argv[3:] or ["mlp", "cnn"]:
        with tempfile.TemporaryDirectory() as scratch:
            run(os.path.abspath(sys.argv[1]), case, sys.argv[2], os.path.join(scratch, case))
