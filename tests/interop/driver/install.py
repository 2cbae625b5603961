"""Installs what the clients need into one directory, by what each ecosystem pins. What is there
already is left alone, as long as its sources are the same."""

import hashlib
import os
import shutil
import subprocess
import sys

from servers import MODULES


def run(*command, directory=None, **environment):
    result = subprocess.run([str(part) for part in command], cwd=directory, text=True,
                            env={**os.environ, **environment},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{result.stdout[-6000:]}")


def once(built, name, sources, install):
    """Installs into built/name, unless that was done from the same sources."""
    digest = hashlib.sha256()
    for source in sorted(sources):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    stamp = built / name / ".installed"
    if not (stamp.exists() and stamp.read_text() == digest.hexdigest()):
        print(f"installing: {name}", flush=True)
        (built / name).mkdir(parents=True, exist_ok=True)
        install(built / name)
        stamp.write_text(digest.hexdigest())


def node(here, built):
    def install(target):
        for source in (here / "node").iterdir():
            shutil.copy(source, target)
        run("npm", "ci", "--no-audit", "--no-fund", directory=target)

    once(built, "node", (here / "node").iterdir(), install)


def python(here, built):
    requirements = here / "python" / "requirements.txt"

    def install(target):
        run(sys.executable, "-m", "venv", target)
        run(target / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check",
            "-r", requirements)

    once(built, "python", [requirements], install)


def go(here, built):
    once(built, "go", (here / "go").iterdir(), lambda target: run(
        "go", "build", "-buildvcs=false", "-mod=readonly", "-o", target / "clients", ".",
        directory=here / "go"))


def java(here, built):
    source = here / "java"

    def install(target):
        run("mvn", "-q", "-B", "-ntp", f"-Dinterop.target={target}", "compile",
            "dependency:copy-dependencies", f"-DoutputDirectory={target / 'libs'}",
            "-DincludeScope=runtime", directory=source)

    once(built, "java", [source / "pom.xml", *source.rglob("*.java")], install)


def rust(here, built):
    source = here / "rust"
    once(built, "rust", [source / "Cargo.toml", source / "Cargo.lock", *source.rglob("*.rs")],
         lambda target: run("cargo", "build", "--locked", "--quiet", directory=source,
                            CARGO_TARGET_DIR=str(target)))


def apache(_here, _built):
    if not (MODULES / "mod_auth_openidc.so").exists():
        print("installing: apache2 (Debian)", flush=True)
        # At run level 1 the package does not start its own instance.
        apt = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        run("apt-get", "update", "-qq", **apt)
        run("apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "-qq",
            "--no-install-recommends", "apache2", "libapache2-mod-auth-openidc", **apt)


NEEDS = {
    "jose": node, "jwks-rsa": node, "pyjwt": python, "joserfc": python, "envoy": python,
    "go-oidc": go, "jwx": go, "keyfunc": go, "nimbus": java, "spring": java, "rust": rust,
    "apache": apache,
}


def install(names, here, built):
    for need in dict.fromkeys(NEEDS[name] for name in names):
        need(here, built)
