"""Ray and Ropeway's worker processes at the same work, in one run, with ratios.

    python -m venv ../peers && ../peers/bin/pip install ray numpy psutil
    ../peers/bin/python benches/peers/workers.py                 # Ray alone
    ../peers/bin/python benches/peers/workers.py -- PROGRAM ...  # and Ropeway, by a program that prints its figures

The program is to print one JSON object with the names that RATIOS uses; times are in seconds, sizes in bytes. Both use
two workers. Ray binds its ports on all addresses, so that everything runs in a network namespace with loopback only,
which needs root or unprivileged user namespaces.
"""

import json
import os
import statistics
import subprocess
import sys
import time

INSIDE = "ROPEWAY_BENCH_INSIDE"
MIB = 1 << 20
WORKERS = 2

# What is shown, how it is computed from both sides' figures, and how large it has to be.
RATIOS = [
    ("no-op call, p50: Ray's actor call / ours", lambda ray, our: ray["actor_call"] / our["call"], 10),
    ("no-op tasks a second: ours / Ray's", lambda ray, our: our["tasks_per_second"] / ray["tasks_per_second"], 100),
    ("exec to first result: Ray's / ours", lambda ray, our: ray["first_result"] / our["first_result"], 100),
    ("new worker to first result: Ray's / ours", lambda ray, our: ray["new_worker"] / our["new_worker"], 30),
    ("chain of 4 with 10 MiB: Ray's / ours", lambda ray, our: ray["chain"] / our["chain"], 8),
    ("512 MiB in the same worker: 0.1 ms / ours", lambda ray, our: 1e-4 / our["same_worker"], 1),
    ("512 MiB to another process: ours / memcpy", lambda ray, our: our["hand_over_rate"] / our["memcpy_rate"], 0.8),
    # Shared memory has pages of 4 KiB, unless the system is told otherwise; ours begins with the finished tensors.
    (
        "the same / memcpy onto such pages",
        lambda ray, our: our["hand_over_rate"] / our["small_pages_memcpy_rate"],
        None,
    ),
    ("the same / Ray's put, fresh", lambda ray, our: our["hand_over_rate"] / ray["put_rate_fresh"], None),
    ("the same / Ray's put, warm", lambda ray, our: our["hand_over_rate"] / ray["put_rate_warm"], None),
    ("idle memory: 40 MB / ours", lambda ray, our: 40e6 / our["idle_bytes"], 1),
    ("1,000,000 queued tasks: 20 s / ours", lambda ray, our: 20 / our["million_tasks"], 1),
    ("their coordinator: 500 MB / ours", lambda ray, our: 500e6 / our["million_tasks_peak"], 1),
]


def in_namespace():
    """Goes on in a network namespace with loopback only."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    script = 'ip link set lo up && exec "$@"'
    command = ["unshare", "--net", *user, "sh", "-c", script, "sh", sys.executable, *sys.argv]
    os.execvpe(command[0], command, {**os.environ, INSIDE: "1"})


def start_ray():
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
             object_store_memory=2048 * MIB)
    return ray


def timed(work, rounds):
    """The median of so many rounds, in seconds."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def first_result():
    """The child of `measure`: from nothing to the result of one task."""
    ray = start_ray()
    assert ray.get(ray.remote(lambda: 7).remote()) == 7
    print("first result", flush=True)
    ray.shutdown()


def from_exec():
    def one():
        begun = time.perf_counter()
        command = [sys.executable, os.path.abspath(__file__), "--first-result"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
            assert child.stdout.readline() == "first result\n"
            seconds = time.perf_counter() - begun
            child.wait()
        return seconds

    return statistics.median(one() for _ in range(3))


def measure():
    first = from_exec()
    import numpy as np
    import psutil

    ray = start_ray()

    @ray.remote
    def nothing():
        return None

    @ray.remote(num_cpus=0)
    class Actor:
        def nothing(self):
            return None

    @ray.remote
    def add(array):
        return array + 1.0

    @ray.remote
    def look(array):
        return float(array[0])

    def new_worker():
        # Each actor has a process of its own; those that Ray keeps ready are used up by the first ones.
        actor = Actor.remote()
        ray.get(actor.nothing.remote())
        actors.append(actor)

    def chain():
        value = start
        for _ in range(4):
            value = add.remote(value)
        return ray.get(value)

    def arithmetic():
        value = array
        for _ in range(4):
            value = value + 1.0
        return value

    ours = {"first_result": first}
    actor = Actor.remote()
    ray.get([nothing.remote() for _ in range(100)] + [actor.nothing.remote()])
    time.sleep(2)
    processes = [psutil.Process()] + psutil.Process().children(recursive=True)
    ours["idle_bytes"] = sum(process.memory_full_info().pss for process in processes)
    ours["idle_processes"] = len(processes)

    ours["call"] = timed(lambda: ray.get(nothing.remote()), 500)
    ours["actor_call"] = timed(lambda: ray.get(actor.nothing.remote()), 1000)
    tasks = 5000
    ours["tasks_per_second"] = tasks / timed(lambda: ray.get([nothing.remote() for _ in range(tasks)]), 3)

    array = np.arange(10 * MIB // 8, dtype=np.float64)
    start = ray.put(array)
    assert chain()[1] == 5.0
    ours["chain"] = timed(chain, 21)
    ours["chain_arithmetic"] = timed(arithmetic, 21)

    large = np.ones(512 * MIB // 8)
    puts = []
    for _ in range(4):
        begun = time.perf_counter()
        reference = ray.put(large)
        puts.append(time.perf_counter() - begun)
        gets = timed(lambda: ray.get(reference), 21)
        in_a_task = timed(lambda: ray.get(look.remote(reference)), 5)
        del reference
        time.sleep(1)
    ours["put_rate_fresh"] = large.nbytes / puts[0]
    ours["put_rate_warm"] = large.nbytes / min(puts[1:])
    ours["get"] = gets
    ours["get_in_a_task"] = in_a_task
    copy = np.empty_like(large)
    ours["memcpy_rate"] = large.nbytes / timed(lambda: np.copyto(copy, large), 7)

    actors = []
    for _ in range(WORKERS + 1):
        new_worker()
    ours["new_worker"] = timed(new_worker, 5)
    ours["version"] = ray.__version__
    ray.shutdown()
    return ours


def main():
    if "--first-result" in sys.argv:
        return first_result()
    if INSIDE not in os.environ:
        in_namespace()
    load = os.getloadavg()[0]
    result = {"cores": os.cpu_count(), "load_before": load, "ray": measure()}
    if "--" in sys.argv:
        command = sys.argv[sys.argv.index("--") + 1 :]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        result["ropeway"] = json.loads(done.stdout.splitlines()[-1])
        result["ratios"] = {}
        for name, ratio, least in RATIOS:
            value = ratio(result["ray"], result["ropeway"])
            result["ratios"][name] = value
            asked = "" if least is None else f"  (at least {least})"
            print(f"{name:<44} {value:10.2f}{asked}", file=sys.stderr)
    print(json.dumps(result, indent=2))


main()
