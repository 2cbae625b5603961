"""The order of modules: a module imports only from those above it, and no two files import each
other, be it by way of others.

    python3 .ci/imports.py      prints each breach, and exits with 1 where there is one
"""
import re
import subprocess
import sys
from pathlib import Path

# The way of the data, from files to connections. `server` carries what `api` answers, and knows
# nothing of it: `api` stands below it for that reason.
ORDER = """
clock encoding source keys config audit logging ownership sandbox ledger key_scanner publish operations
token server api serve cli
""".split()

SOURCE = Path("src")


def files():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src/*.rs"],
        capture_output=True, text=True, check=True)
    return sorted(p for p in {Path(line) for line in listed.stdout.split()} if p.exists())


def module_of(path):
    parts = list(path.relative_to(SOURCE).with_suffix("").parts)
    return tuple(parts[:-1] if parts[-1] == "mod" else parts)


def code_of(path):
    """The text without comments and without the tests at its end."""
    text = re.sub(r"//[^\n]*", "", path.read_text())
    return re.split(r"#\[cfg\(test\)\]\s*mod \w+ \{", text)[0]


def expand(tree):
    """The paths in a use tree such as `a::{b, c::{d, e}}`."""
    tree = tree.strip()
    at = tree.find("{")
    if at < 0:
        return [tree.split(" as ")[0].strip()]
    head, body, depth, start, found = tree[:at], tree[at + 1:tree.rindex("}")], 0, 0, []
    for i, letter in enumerate(body + ","):
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 0:
            piece = body[start:i].strip()
            found += expand(piece) if piece else []
            start = i + 1
    return [head + piece for piece in found]


def absolute(path, module):
    """A path of the crate as a tuple, or nothing where it leads elsewhere."""
    parts = [part for part in path.split("::") if part]
    if parts[:1] == ["crate"]:
        return tuple(parts[1:])
    if parts[:1] == ["self"]:
        return module + tuple(parts[1:])
    base = module
    if parts[:1] != ["super"]:
        return None
    while parts[:1] == ["super"]:
        base, parts = base[:-1], parts[1:]
    return base + tuple(parts)


def imports_of(path, module, modules):
    code = code_of(path)
    named = [piece for tree in re.findall(r"\buse\s+([^;]+);", code) for piece in expand(tree)]
    named += re.findall(r"\b(?:crate|super)(?:::\w+)+", code)
    found = set()
    for name in named:
        target = absolute(name, module)
        if target is None:
            continue
        while target and target not in modules:
            target = target[:-1]
        if target and target != module:
            found.add(target)
    return found


def main():
    modules = {module_of(path): path for path in files() if path.name not in ("main.rs", "lib.rs")}
    graph = {module: imports_of(path, module, modules) for module, path in modules.items()}
    breaches = []
    for module, targets in sorted(graph.items()):
        for name in {module[0]} | {target[0] for target in targets}:
            if name not in ORDER:
                breaches.append(f"{name} has no place in the order of modules (.ci/imports.py)")
        for target in sorted(targets):
            if module[0] != target[0] and ORDER.index(target[0]) > ORDER.index(module[0]):
                breaches.append(
                    f"{modules[module]} imports {'::'.join(target)}, which stands below it")
    # A folder and what lies in it are one there: children may use what their parent defines.
    related = lambda a, b: a[:len(b)] == b or b[:len(a)] == a
    flat = {m: {t for t in targets if not related(m, t)} for m, targets in graph.items()}
    for start in sorted(flat):
        reached, todo = {}, [(target, [start]) for target in flat[start]]
        while todo:
            module, way = todo.pop()
            if module == start:
                circle = " -> ".join("::".join(step) for step in [*way, start])
                if start == min(way):
                    breaches.append(f"a circle: {circle}")
                break
            if module not in reached:
                reached[module] = way
                todo += [(target, [*way, module]) for target in flat[module]]
    print("\n".join(sorted(set(breaches))), end="\n" if breaches else "")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
