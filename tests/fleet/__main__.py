"""Four replicas on a real API server, and everything that can go wrong between them. See README.md."""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import faults
import phases
import rotation
from kube_apiserver import LIBFAKETIME, Missing, build
from world import World

# In the order in which they are done. The rest of the time is for random faults.
PHASES = ["drops", "orders", "rollout", "amnesia", "away", "idle", "size", "clock", "rotation", "faults"]


def main():
    parser = argparse.ArgumentParser(prog=".ci/fleet", description=__doc__)
    parser.add_argument("binary", type=Path)
    parser.add_argument("--other", type=Path, help="another version of the program, for every second replica")
    parser.add_argument("--seconds", type=int, default=180, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--drops", type=int, default=200, help="(%(default)s)")
    parser.add_argument("--kills", type=int, default=5, help="replicas that die while they rotate (%(default)s)")
    parser.add_argument("--away", type=int, default=12, help="for how long the API server is away (%(default)s s)")
    parser.add_argument("--only", action="append", choices=PHASES, help="this phase alone; may be repeated")
    parser.add_argument("--keep", action="store_true", help="keep logs and states, and say where")
    arguments = parser.parse_args()
    try:
        build()
    except Missing as missing:
        print(f"skipped: the fleet on a real API server, which can't be had here: {missing}")
        return 0
    if subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL).returncode != 0:
        print("skipped: the fleet on a real API server: a mount namespace can't be had here")
        return 0
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="fleet-"))
    binaries = [one.resolve() for one in (arguments.binary, arguments.other) if one]
    # libfaketime is loaded into programs that are linked dynamically.
    clocks = LIBFAKETIME is not None and all(b"/ld-" in one.open("rb").read(8192) for one in binaries)
    if not clocks:
        print("skipped: clocks that are an hour off: they need libfaketime, and a program that is not static")
    world = None
    try:
        world = World(binaries, directory, arguments.seed, clocks)
        chosen = arguments.only or PHASES
        for phase in [phase for phase in PHASES if phase in chosen]:
            if phase in ("orders", "amnesia", "away", "idle") and not world.replicas[0].process:
                world.fresh()
            at, failed = time.monotonic(), len(world.failures)
            left = max(20, arguments.seconds - (at - began))
            said = {
                "drops": lambda: phases.drops(world, arguments.drops),
                "orders": lambda: phases.orders(world, 25),
                "rollout": lambda: phases.rollout(world, 2),
                "amnesia": lambda: phases.amnesia(world),
                "away": lambda: phases.away(world, arguments.away),
                "idle": lambda: phases.idle(world, 12),
                "size": lambda: phases.size(world),
                "clock": lambda: phases.clock(world),
                "rotation": lambda: rotation.play(world, arguments.kills),
                # What a loss costs without a grace, and with one.
                "faults": lambda: faults.play(world, left, ["drop", "grace"][arguments.seed % 2]),
            }[phase]()
            verdict = "ok" if len(world.failures) == failed else "FAILED"
            print(f"{phase:8} {verdict:6} {time.monotonic() - at:5.0f} s  {said}", flush=True)
        failures = world.failures
    finally:
        if world:
            world.stop()
        if arguments.keep:
            print(f"kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    for failure in failures:
        print(f"FAILED {failure}")
    print(f"fleet: seed {arguments.seed}, {len(failures)} failures in {time.monotonic() - began:.0f} s")
    return 1 if failures else 0


def interrupted(*_):
    raise KeyboardInterrupt


signal.signal(signal.SIGTERM, interrupted)
sys.exit(main())
