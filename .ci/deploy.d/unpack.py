# Unpacks the image as an engine would, and looks at what it promises.
import gzip, hashlib, io, json, os, sys, tarfile
archive, rootfs, binary, limit = *sys.argv[1:4], int(sys.argv[4])
with tarfile.open(archive) as outer:
    def blob(digest):
        data = outer.extractfile("blobs/" + digest.replace(":", "/")).read()
        assert "sha256:" + hashlib.sha256(data).hexdigest() == digest, digest
        return data
    manifest = json.loads(blob(json.load(outer.extractfile("index.json"))["manifests"][0]["digest"]))
    config = json.loads(blob(manifest["config"]["digest"]))
    layers = []
    for layer in manifest["layers"]:
        data = blob(layer["digest"])
        layers.append(gzip.decompress(data) if layer["mediaType"].endswith("gzip") else data)
size = sum(map(len, layers))
assert size < limit, f"the image has {size} bytes"
packed = os.path.getsize(archive)
files = {}
for layer in layers:
    with tarfile.open(fileobj=io.BytesIO(layer)) as inner:
        for member in inner:
            files[member.name] = member
            inner.extract(member, rootfs, filter="fully_trusted")
assert list(files) == ["jwksd"], f"the image holds more than the binary: {list(files)}"
assert files["jwksd"].mode & 0o7777 == 0o555, oct(files["jwksd"].mode)
with open(binary, "rb") as one, open(f"{rootfs}/jwksd", "rb") as other:
    assert one.read() == other.read(), "another binary"
settings = config["config"]
assert settings["User"] == "65532:65532", settings
assert settings["Entrypoint"] == ["/jwksd"] and settings["Cmd"] == ["serve"], settings
title, version = (settings["Labels"]["org.opencontainers.image." + name] for name in ("title", "version"))
assert title == "jwksd" and version[0].isdigit(), settings
print(f"the image has one file, {size} bytes, {packed} packed; user {settings['User']}; version {version}")
