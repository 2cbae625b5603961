"""The log's events: every line that the program logs has a stable `event`, and deploy/README.md
lists each of them with its level.

    python3 .ci/events.py      prints each breach, and exits with 1 where there is one
"""
import re
import subprocess
import sys
from pathlib import Path

NAME = r'"([a-z_]+\.[a-z_]+)"'
LIST = Path("deploy/README.md")


def calls(text):
    """The level and the arguments of each call of a logging macro, comments aside."""
    text = re.sub(r"^\s*//[^\n]*", "", text, flags=re.M)
    for match in re.finditer(r"\b(trace|debug|info|warn|error)!\(", text):
        depth, in_string, end = 1, False, match.end()
        while depth:
            letter = text[end]
            if letter == "\\":
                end += 1
            elif letter == '"':
                in_string = not in_string
            elif not in_string:
                depth += (letter == "(") - (letter == ")")
            end += 1
        yield match[1], text[match.end():end - 1], text[:match.start()]


def logged():
    """The events of the source with their levels, and the lines without one."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src/*.rs"],
        capture_output=True, text=True, check=True).stdout.split()
    events, breaches = set(), []
    for name in filter(lambda name: Path(name).exists(), names):
        for level, arguments, before in calls(Path(name).read_text()):
            if found := re.search(rf"\bevent = {NAME}", arguments):
                events.add((found[1], level))
            elif re.search(r"(^|\s)event,", arguments):
                # Chosen just before, as one of several: `let (event, what) = ...`.
                choice = before.rpartition("let (event, what)")[2]
                events |= {(event, level) for event in re.findall(rf"\({NAME},", choice)}
            else:
                breaches.append(f"{name} logs without an event: {' '.join(arguments.split())}")
    return events, breaches


def main():
    events, breaches = logged()
    section = LIST.read_text().split("\n## Log events\n")[-1].split("\n## ")[0]
    listed = re.findall(r"^\| `([a-z_.]+)` \| ([a-z]+) \|", section, flags=re.M)
    breaches += [f"{LIST} lists twice: {row}" for row in listed if listed.count(row) > 1]
    breaches += [f"{LIST} does not list {row}" for row in sorted(events - set(listed))]
    breaches += [f"{LIST} lists what nothing logs: {row}" for row in sorted(set(listed) - events)]
    print("\n".join(breaches), end="\n" if breaches else "")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
