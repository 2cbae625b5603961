"""Real clients against a real jwksd. See the README beside this directory."""

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import install
import report
import scenarios
from authority import Authority
from clients import all_clients
from daemon import ALGORITHMS, Daemon, audience
from watches import INTERVAL

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent.parent
BUILT = ROOT / "target" / "interop"


async def strangers(binary, directory):
    """A maker of tokens for any issuer, by a key that no jwksd of ours publishes."""
    daemon = Daemon(binary, directory / "stranger", propagation=40, grace=18)
    await daemon.operation("issue", "--audience", audience("ES256"), "--algorithm", "ES256")

    async def make(issuer):
        claims = '{"sub": "interop", "iss": "%s"}' % issuer
        return (await daemon.command("token", "sign", "--audience", audience("ES256"),
                                     "--ttl", "1h", "--claims", claims)).strip()

    return make


async def run(clients, kinds, directory, arguments):
    binary = arguments.binary.resolve()
    stranger = await strangers(binary, directory)
    authority = Authority(directory / "authority")
    await authority.establish()
    if shutil.which("keytool"):
        await authority.trusted_by_java()
    os.environ.update(authority.environment())
    running = [kind(binary, directory, authority, arguments.patience, arguments.interval)
               for kind in kinds]
    programs = {client: client.make(authority) for client in clients}
    try:
        for client, program in programs.items():
            verifiers = [verifier for scenario in running
                         for verifier in scenario.verifiers(client).values()]
            await program.start(verifiers, directory / f"{client.name}.log")
            if client.name == "kube-apiserver":
                await program.same_keys(binary)
        await asyncio.gather(*(scenario.run(programs, stranger) for scenario in running))
    finally:
        await asyncio.gather(*(program.stop() for program in programs.values()))
    return running


def main():
    names = list(install.NEEDS)
    parser = argparse.ArgumentParser(prog="tests/interop/run", description=__doc__)
    parser.add_argument("clients", nargs="*", metavar="CLIENT", help=f"of {', '.join(names)}")
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "debug" / "jwksd")
    parser.add_argument("--scenario", action="append", metavar="NAME",
                        choices=[kind.__name__.lower() for kind in scenarios.ALL])
    parser.add_argument("--patience", type=int, default=scenarios.PATIENCE, metavar="SECONDS",
                        help="what caches may do for longer is not waited for (%(default)s)")
    parser.add_argument("--interval", type=float, default=INTERVAL, metavar="SECONDS",
                        help="how often tokens are presented (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep logs and keys, and say where")
    arguments = parser.parse_args()
    if unknown := set(arguments.clients) - set(names):
        parser.error(f"no such client: {', '.join(unknown)}")
    clients = [client for client in all_clients(HERE, BUILT)
               if not arguments.clients or client.name in arguments.clients]
    if not install.has_libjwt():
        without = [client for client in clients if client.name != "libjwt"]
        if len(without) < len(clients):
            print("skipped: libjwt, of which no version from 3.6 on is installed here")
        clients = without
    kinds = [kind for kind in scenarios.ALL
             if not arguments.scenario or kind.__name__.lower() in arguments.scenario]
    had = install.install([client.name for client in clients], HERE, BUILT)
    clients = [client for client in clients if client.name in had]
    directory = Path(tempfile.mkdtemp(prefix="interop-"))
    began = time.monotonic()
    try:
        ran = asyncio.run(run(clients, kinds, directory, arguments))
    finally:
        if arguments.keep:
            print(f"kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    versions = {client.name: install.version(client.name, HERE) for client in clients}
    print(report.tables(clients, versions, ran))
    failures = [failure for scenario in ran for failure in scenario.failures.items()]
    for what, (example, count) in failures:
        print(f"FAILED {what} ({count} times; {example})")
    print(f"{len(clients)} clients, {len(ran)} scenarios, {len(ALGORITHMS)} algorithms: "
          f"{len(failures)} failures in {time.monotonic() - began:.0f} s")
    sys.exit(1 if failures else 0)


def interrupted(*_):
    raise KeyboardInterrupt


signal.signal(signal.SIGTERM, interrupted)
main()
