# The documents: every link leads somewhere, every file that they name is there, and the README's
# sidecar becomes a pod, for the check of manifests.
#
#   docs.py WHERE-THE-POD-GOES
import glob, os, re, sys
import yaml


def anchors(text):
    for heading in re.findall(r"^#+ (.*)$", text, re.M):
        yield re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-")


links = files = 0
documents = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *sorted(glob.glob("deploy/*.md"))]
for document in documents:
    text = open(document).read()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        path = os.path.normpath(os.path.join(os.path.dirname(document), path)) if path else document
        assert os.path.exists(path), f"{document} links to {target}"
        if anchor:
            assert anchor in set(anchors(open(path).read())), f"{document} links to {target}"
        links += 1
    for path in re.findall(r"\b(?:deploy|config|tests|\.ci)/[\w./-]*\w", text):
        assert os.path.exists(path) or os.path.exists("deploy/" + path), f"{document} names {path}"
        files += 1
readme = open("README.md").read()
unnamed = [path for path in glob.glob("config/*.toml") if f"]({path})" not in readme]
assert not unnamed, f"the README's map does not name {unnamed}"
assert readme.count("\n") <= 200, "the README is for newcomers: at most 200 lines"
(snippet,) = re.findall(r"^```yaml\n(initContainers:.*?)^```$", readme, re.M | re.S)
spec = yaml.safe_load(snippet)
(jwksd,) = spec["initContainers"]
assert jwksd["restartPolicy"] == "Always"
assert len(snippet.strip().splitlines()) <= 11, "a sidecar in ten lines"
spec["containers"] = [{"name": "iam", "image": "iam"}]
spec["volumes"] = [{"name": mount["name"], "emptyDir": {}} for mount in jwksd["volumeMounts"]]
pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "iam"}, "spec": spec}
yaml.safe_dump(pod, open(sys.argv[1], "w"))
print(f"{links} links lead somewhere, {files} named files are there")
