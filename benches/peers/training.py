"""Trains the same models with Ropeway and PyTorch: the same data, first weights and order of rows; losses, then speed.

    python -m venv ../peers && ../peers/bin/pip install torch numpy
    sh datasets/fetch.sh fashion
    cargo build --release
    ../peers/bin/python benches/peers/training.py target/release/ropeway data/fashion [mlp cnn logistic accurate]

Ropeway trains with `train`, from training.toml. Its first weights are those after an epoch at a rate of 2e-38, which
changes none but zeros; PyTorch begins with them, and takes the rows in the order in which they lie, as Ropeway does.

First the losses are compared: of the first steps one by one, then of all epochs. Then both train in turns, as whole
processes with two threads, and medians are shown: samples a second of the training alone, as each side's loop measures
it (without start, imports, loading and compiling), wall and CPU seconds and peak memory of the whole
process; of `accurate`, the seconds until 0.90 of the test images are told apart, from other first weights each round,
since one epoch more or less is chance. PyTorch's settings are tried and the
fastest is the one compared with: fused or foreach optimisers, channels last, a bag of embeddings for the table; with
COMPILE=1, torch.compile too (it takes minutes). ROUNDS=N sets the rounds. With MODULES=PROGRAM, the built
`--bench modules`, the same networks as candle modules under `Trainer` take their turns: of fused layers and of
candle-nn's. With `--device cuda` at the end both train on the machine's first CUDA device, in f32 without TF32: for that
Ropeway is built with `--features cuda`.
"""

import os

THREADS = 2
DEVICE = os.environ.get("DEVICE", "cpu")
os.environ["OMP_NUM_THREADS"] = str(THREADS)

import gzip
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

ROUNDS = int(os.environ.get("ROUNDS", "7"))
# Losses may differ by this share of themselves. Sums are in other orders: at first that is rounding; after some dozen
# steps it decides the sign of gradients near zero, of which Adam makes whole steps, and the two part slowly.
STEPS, STEP_TOLERANCE, EPOCH_TOLERANCE = 12, 1e-4, 1e-2
FILES = ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
         "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]
HERE = os.path.dirname(os.path.abspath(__file__))
# Rows and categorical columns of the table, categories of each: 1,000 columns of 0 and 1.
TABLE = (100_000, 10, 100)
ACCURACY = 0.90
# After how many epochs the rate drops on the way there, and to what share: as in training.toml.
DECAY = 4, 0.25

# Rows a step, epochs, and PyTorch's settings that are tried.
CASES = {
    "mlp": (128, 3, ["foreach", "fused"]),
    "cnn": (64, 1, ["fused", "fused last"]),
    "logistic": (256, 4, ["foreach", "fused", "fused bag"]),
    "accurate": (64, 12, ["fused last"]),
}
# How many times PyTorch's samples a second is asked for.
LEAST = {"mlp": 1.25, "cnn": 1.25, "logistic": 2.0}
if os.environ.get("COMPILE"):
    CASES = {case: (*rest, [*variants, f"{variants[-1]} compiled"]) for case, (*rest, variants) in CASES.items()}


# ---- data


def idx(path):
    with gzip.open(path) as file:
        raw = file.read()
    shape = [int.from_bytes(raw[4 + 4 * i:8 + 4 * i], "big") for i in range(raw[3])]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def write_table(path):
    """Categories by chance, and a label that depends on them."""
    _, columns, categories = TABLE
    rng = np.random.default_rng(7)
    codes = rng.integers(0, categories, (TABLE[0], columns))
    codes[:categories] = np.arange(categories)[:, None]  # each occurs, so that the columns are known
    score = rng.normal(0, 1, (columns, categories))[np.arange(columns), codes].sum(axis=1)
    label = (score + rng.logistic(size=len(score)) > 0).astype(int)
    with open(path, "w") as file:
        file.write(",".join(f"c{column}" for column in range(columns)) + ",label\n")
        file.writelines(",".join(f"v{code:02}" for code in row) + f",{y}\n" for row, y in zip(codes, label))
    np.savez(path + ".npz", codes=codes, label=label)


def prepare(folder, data):
    """The files of training.toml."""
    os.makedirs(folder, exist_ok=True)
    for name in FILES:
        os.symlink(os.path.join(os.path.abspath(data), name), os.path.join(folder, name))
    write_table(os.path.join(folder, "table.csv"))


# ---- Ropeway


def ropeway(program, folder, case, epochs, store="memory://", **more):
    """One training: what the program says when it is finished, and what the process used."""
    sets = {f"{case}.epochs": epochs, **more}
    command = [program, "run", os.path.join(HERE, "training.toml"), "--only", case, "--cores", str(THREADS)]
    if DEVICE == "cuda":
        sets[f"{case}.needs.device"] = "cuda"
    command += [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]
    said, used = process([*command, "--format", "json", "--store", store], folder)
    # What the stage said last: steps from the very first on, and how many a second.
    told = [event for event in map(json.loads, said.splitlines()) if event["event"] == "progress" and event["name"] == case]
    # Nothing if the result was known.
    return {"seconds": told[-1]["done"] / told[-1]["metrics"]["steps/s"] if told else math.nan, **used}


def modules(case, layers):
    """A candle module under `Trainer`."""
    said, used = process([os.path.abspath(os.environ["MODULES"]), case, layers, "2"], HERE)
    figures = json.loads(said.splitlines()[-1])
    return {**figures, **used}


def exported(program, folder, artifact, file):
    path = os.path.join(folder, file)
    subprocess.run([program, "export", artifact, "-o", path], cwd=folder, check=True)
    return path


def first_weights(program, folder, case, **more):
    """The file with them."""
    still = "{sgd={rate=2e-38}}" if case in ("cnn", "accurate") else "{adam={rate=2e-38}}"
    ropeway(program, folder, case, 1, "file://.ropeway", **{f"{case}.optimizer": still, **more})
    return exported(program, folder, f"{case}.model", f"{case}.safetensors")


def curve(program, folder, case, epochs, **more):
    """The rows of the learning curve."""
    ropeway(program, folder, case, epochs, "file://.ropeway", **more)
    with open(exported(program, folder, f"{case}.curve", f"{case}.csv")) as file:
        names, *rows = [line.strip().split(",") for line in file]
    return [dict(zip(names, [float(value or "nan") for value in row])) for row in rows]


# ---- PyTorch


def weights(path):
    """The tensors of a safetensors file; what a rate of 2e-38 made of zeros is zero again."""
    with open(path, "rb") as file:
        raw = file.read()
    start = 8 + int.from_bytes(raw[:8], "little")
    head = json.loads(raw[8:start])
    head.pop("__metadata__", None)
    place = lambda entry: raw[start + entry["data_offsets"][0]:start + entry["data_offsets"][1]]
    tensors = {name: np.frombuffer(place(entry), np.float32).reshape(entry["shape"]) for name, entry in head.items()}
    return {name: np.where(np.abs(tensor) < 1e-30, np.float32(0), tensor) for name, tensor in tensors.items()}


def model(case, first, settings):
    import torch
    from torch import nn

    first = {name: torch.tensor(values) for name, values in weights(first).items()}

    def fill(module, name, turn):
        """Ropeway's weights lie the other way round: inputs first, channels last."""
        module.weight.data.copy_(turn(first[f"{name}.weight"]))
        if getattr(module, "bias", None) is not None:
            module.bias.data.copy_(first[f"{name}.bias"])
        return module

    def dense(name, inputs, outputs, turn=lambda weight: weight.T):
        return fill(nn.Linear(inputs, outputs), name, turn)

    def conv(name, inputs, outputs):
        return fill(nn.Conv2d(inputs, outputs, 3, padding=1), name, lambda weight: weight.permute(3, 2, 0, 1))

    if case == "mlp":
        return nn.Sequential(nn.Flatten(), dense("dense1", 784, 256), nn.ReLU(), dense("dense2", 256, 128), nn.ReLU(),
                             dense("dense3", 128, 10))
    if case == "logistic" and "bag" in settings:
        # The sum of the rows of the weights that a row's categories name: no column of 0 and 1 is ever made.
        class Bag(nn.Module):
            def __init__(self):
                super().__init__()
                self.weights = nn.EmbeddingBag(TABLE[1] * TABLE[2], 1, mode="sum")
                self.weights.weight.data.copy_(first["dense1.weight"])
                self.bias = nn.Parameter(first["dense1.bias"].clone())

            def forward(self, codes):
                return self.weights(codes) + self.bias

        return Bag()
    if case == "logistic":
        return dense("dense1", TABLE[1] * TABLE[2], 1)
    last = lambda weight: weight.reshape(7, 7, 32, 10).permute(3, 2, 0, 1).reshape(10, -1)
    return nn.Sequential(conv("conv1", 1, 16), nn.ReLU(), nn.MaxPool2d(2), conv("conv2", 16, 32), nn.ReLU(),
                         nn.MaxPool2d(2), nn.Flatten(), dense("dense1", 7 * 7 * 32, 10, last))


def examples(case, folder, settings, part):
    import torch

    if case == "logistic":
        table = np.load(os.path.join(folder, "table.csv.npz"))
        codes = torch.from_numpy(table["codes"] + np.arange(TABLE[1]) * TABLE[2])
        label = torch.from_numpy(table["label"]).float()[:, None]
        if "bag" in settings:
            return codes, label
        return torch.zeros(len(codes), TABLE[1] * TABLE[2]).scatter_(1, codes, 1.0), label
    images, labels = (torch.from_numpy(idx(os.path.join(folder, name)).copy()) for name in part)
    images = (images.float() / 255)[:, None]
    return images.contiguous(memory_format=torch.channels_last) if "last" in settings else images, labels.long()


def torch_alone(case, folder, first, epochs, settings, until):
    """One training in this process, with what it takes: prints losses, seconds and accuracies as JSON. It ends early
    once it is as accurate as `until` says."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(THREADS)
    torch.backends.cudnn.allow_tf32 = False
    settings, batch = settings.split(), CASES[case][0]
    there = lambda part: [tensor.to(DEVICE) for tensor in examples(case, folder, settings, part)]
    rows, labels = there(FILES[:2])
    test = there(FILES[2:]) if case == "accurate" else None

    def fresh():
        net = model(case, first, settings).to(DEVICE)
        net = net.to(memory_format=torch.channels_last) if "last" in settings else net
        how = {"fused": True} if "fused" in settings else {"foreach": True}
        if case in ("cnn", "accurate"):
            return net, torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, **how)
        return net, torch.optim.Adam(net.parameters(), lr=1e-3, **how)

    loss_of = functional.binary_cross_entropy_with_logits if case == "logistic" else functional.cross_entropy
    net, optimizer = fresh()

    def value(rows, labels):
        return loss_of(net(rows), labels)

    def right(rows, labels):
        return (net(rows).argmax(1) == labels).sum()

    if "compiled" in settings:
        value, right = torch.compile(value), torch.compile(right)

    steps = []

    def epoch(rows, labels):
        net.train()
        total = torch.zeros((), device=DEVICE)
        for start in range(0, len(rows), batch):
            loss = value(rows[start:start + batch], labels[start:start + batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(labels[start:start + batch])
            if len(steps) < STEPS:
                steps.append(loss.detach())
        return total.item() / len(labels)

    def accuracy(rows, labels):
        net.eval()
        with torch.inference_mode():
            parts = (right(rows[start:start + 500], labels[start:start + 500]) for start in range(0, len(rows), 500))
            return sum(part.item() for part in parts) / len(labels)

    # Compiles for a whole batch and for the last one, and warms up; then begins again.
    rest = len(rows) % batch
    epoch(rows[:4 * batch + rest], labels[:4 * batch + rest])
    if test:
        accuracy(*test)
    with torch.no_grad():
        for old, new in zip(net.state_dict().values(), fresh()[0].state_dict().values()):
            old.copy_(new)
    optimizer = type(optimizer)(net.parameters(), **optimizer.defaults)

    steps.clear()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    curve, begun = [], time.perf_counter()
    # As `schedule` of the stage `accurate` in training.toml.
    decay = torch.optim.lr_scheduler.StepLR(optimizer, *DECAY) if test else None
    for _ in range(epochs):
        row = {"train.loss": epoch(rows, labels)}
        if test:
            decay.step()
            row["valid.accuracy"] = accuracy(*test)
        curve.append(row)
        if until and row["valid.accuracy"] >= until:
            break
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "curve": curve, "steps": [{"train.loss": loss.item()} for loss in steps]}))


def pytorch(case, folder, first, epochs, settings, until=0.0):
    given = [case, folder, first, str(epochs), settings, str(until)]
    command = [sys.executable, os.path.abspath(__file__), "--alone", *given]
    said, used = process(command, folder)
    return {**json.loads(said.splitlines()[-1]), **used}


# ---- the comparison


def process(command, folder):
    """What a process printed; its wall and CPU seconds and peak memory."""
    begun = time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(command, cwd=folder, stdout=out, stderr=errors)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - begun
        out.seek(0), errors.seek(0)
        if child.returncode:
            sys.exit(f"{command} failed:\n{errors.read().decode()}")
        return out.read().decode(), {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss / 1024}


def largest_gap(ours, theirs):
    return max(abs(a["train.loss"] - b["train.loss"]) / b["train.loss"] for a, b in zip(ours, theirs, strict=True))


def compare(program, case, folder, settings):
    """The same losses: stops where they are not."""
    first = first_weights(program, folder, case)
    steps = curve(program, folder, case, 1, **{f"{case}.curve": "{steps=1}"})[:STEPS]
    # Training for many epochs at a high rate, two that round differently end at other weights of the same quality.
    epochs = 1 if case == "accurate" else CASES[case][1]
    theirs = pytorch(case, folder, first, epochs, settings)
    for ours, theirs, what, tolerance in (
        (steps, theirs["steps"], "steps", STEP_TOLERANCE),
        (curve(program, folder, case, epochs), theirs["curve"], "epochs", EPOCH_TOLERANCE),
    ):
        gap = largest_gap(ours, theirs)
        print(f"{case}: losses of {len(ours)} {what} differ by {gap:.1e} of themselves at most ({settings})")
        assert gap < tolerance, "the losses are not the same"
    return first


def line(name, rounds, samples):
    middle = {key: statistics.median(one[key] for one in rounds) for key in ("seconds", "wall", "cpu", "peak")}
    print(f"  {name:<30}{samples / middle['seconds']:>12,.0f}{middle['seconds']:>9.2f}{middle['wall']:>9.2f}"
          f"{middle['cpu']:>9.2f}{middle['peak']:>9.0f}", flush=True)
    return middle["seconds"]


def ratio(ours, theirs, key):
    """Each round by itself: what disturbs a machine disturbs neighbours alike."""
    return statistics.median(b[key] / a[key] for a, b in zip(ours, theirs))


def asked(found, least):
    """What was asked for, and whether it is met."""
    return f" (asked {least}: {'met' if found >= least else 'MISSED'})"


def time_to_accuracy(program, folder):
    """Both train until the test images are told apart as well as ACCURACY says, each for as many epochs as it needs."""
    _, most, (settings,) = CASES["accurate"]
    ours, theirs = [], []
    for seed in range(7, 7 + ROUNDS):
        first = first_weights(program, folder, "accurate", seed=seed)
        rows = curve(program, folder, "accurate", most, seed=seed)
        epochs = next((epoch for epoch, row in enumerate(rows, 1) if row["valid.accuracy"] >= ACCURACY), None)
        torch = pytorch("accurate", folder, first, most, settings, ACCURACY)
        if epochs is None or torch["curve"][-1]["valid.accuracy"] < ACCURACY:
            sys.exit(f"accurate: not {ACCURACY} in {most} epochs: there is no time to compare")
        ours.append({"epochs": epochs, **ropeway(program, folder, "accurate", epochs, seed=seed)})
        theirs.append({"epochs": len(torch["curve"]), **torch})
    print(f"accurate, {ROUNDS} first weights")
    for name, rounds in (("Ropeway", ours), ("PyTorch", theirs)):
        epochs = ", ".join(str(one["epochs"]) for one in rounds)
        seconds = statistics.mean(one["seconds"] for one in rounds)
        each = statistics.median(one["seconds"] / one["epochs"] for one in rounds)
        print(f"  {name} reaches {ACCURACY} in {seconds:.1f} s on average: {epochs} epochs of {each:.2f} s")
    whole = sum(one["seconds"] for one in theirs) / sum(one["seconds"] for one in ours)
    print(f"accurate: Ropeway takes 1/{whole:.2f} of PyTorch's time{asked(whole, 1)}, "
          f"1/{ratio(ours, theirs, 'peak'):.1f} of the memory", flush=True)


def run(program, case, folder):
    _, epochs, variants = CASES[case]
    first = compare(program, case, folder, variants[0])
    samples = (TABLE[0] if case == "logistic" else 60_000) * epochs
    if case == "accurate":
        return time_to_accuracy(program, folder)
    ours, theirs = [], {settings: [] for settings in variants}
    candle = {layers: [] for layers in ("fused", "candle") if "MODULES" in os.environ and case in ("mlp", "cnn")}
    for _ in range(ROUNDS):
        ours.append(ropeway(program, folder, case, epochs))
        for settings in variants:
            theirs[settings].append(pytorch(case, folder, first, epochs, settings))
        for layers in candle:
            candle[layers].append(modules(case, layers))
    print(f"{case}, medians of {ROUNDS}{'':<12}samples/s  seconds    whole      CPU      MiB")
    line("Ropeway", ours, samples)
    best = min(theirs, key=lambda settings: line(f"PyTorch, {settings}", theirs[settings], samples))
    for layers, rounds in candle.items():
        line(f"Trainer, {layers} layers", rounds, rounds[0]["samples"])
    speed, memory = ratio(ours, theirs[best], "seconds"), ratio(ours, theirs[best], "peak")
    print(f"{case}: Ropeway / PyTorch ({best}): {speed:.2f} times the samples a second{asked(speed, LEAST[case])}, "
          f"1/{memory:.1f} of the memory{asked(memory, 3)}, "
          f"1/{ratio(ours, theirs[best], 'wall'):.1f} of the whole time", flush=True)


if __name__ == "__main__" and sys.argv[1] == "--alone":
    torch_alone(*sys.argv[2:5], int(sys.argv[5]), sys.argv[6], float(sys.argv[7]))
elif __name__ == "__main__":
    if "--device" in sys.argv:
        place = sys.argv.index("--device")
        DEVICE = os.environ["DEVICE"] = sys.argv[place + 1]
        del sys.argv[place:place + 2]
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder, sys.argv[2])
        for case in sys.argv[3:] or CASES:
            run(os.path.abspath(sys.argv[1]), case, folder)
