# The manifests and charts on a real API server: it takes them all, an upgrade leaves the ledger as it is, and
# the ServiceAccount may do what a replica does and nothing else.
#
#   applied.py SCRATCH HELM CHART EXAMPLE
import base64, subprocess, sys
from pathlib import Path
import yaml

sys.path.insert(0, "tests/fleet")
from kube_apiserver import ApiServer, Missing

scratch, helm, chart, example = Path(sys.argv[1]), *sys.argv[2:]
try:
    api = ApiServer(scratch / "kube")
except Missing as missing:
    print(f"skipped: the manifests on a real API server, which can't be had here: {missing}")
    sys.exit()
MERGE = "application/merge-patch+json"


def secret(namespace):
    return f"/api/v1/namespaces/{namespace}/secrets/jwksd-ledger"


def path(document, namespace):
    group = document["apiVersion"]
    plural = {"NetworkPolicy": "networkpolicies"}.get(document["kind"], document["kind"].lower() + "s")
    return f"/{'apis' if '/' in group else 'api'}/{group}/namespaces/{namespace}/{plural}"


def run_helm(*arguments):
    done = subprocess.run([helm, *arguments, "--namespace", "charts", "--kubeconfig", scratch / "kubeconfig"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


try:
    api.start()
    taken = 0
    for number, name in enumerate(("base", "cert-manager", "fleet", "issuer", "persistent", "alone", "alone-many", "sidecar-fleet",
                                   "rotation")):
        namespace = "iam" if name == "fleet" else f"applied-{number}"
        api.namespace(namespace)
        for document in yaml.safe_load_all((scratch / f"{name}.yaml").read_text()):
            if not document or document["apiVersion"].split("/")[0] in ("monitoring.coreos.com", "cert-manager.io"):
                continue
            document["metadata"]["namespace"] = namespace
            for subject in document.get("subjects", []):
                subject["namespace"] = namespace
            # fieldValidation: a member that the API does not know is refused.
            api.must("POST", path(document, namespace) + "?fieldValidation=Strict", document)
            taken += 1
    print(f"a real API server takes {taken} resources")

    token = api.token("iam", "iam")
    one, others = secret("iam"), "/api/v1/namespaces/iam/secrets"
    by_name = others + "?fieldSelector=metadata.name%3Djwksd-ledger"
    ledger = api.ask("GET", one, token=token)[1]
    asked = {
        "get": api.ask("GET", one, token=token), "list": api.ask("GET", by_name, token=token),
        "watch": api.ask("GET", by_name + "&watch=true&timeoutSeconds=1", token=token),
        "update": api.ask("PUT", one, {**ledger, "data": {"key.a": "e30="}}, token=token),
        "patch": api.ask("PATCH", one, {"data": {"key.b": "e30="}}, token=token, media=MERGE),
    }
    assert all(status == 200 for status, _ in asked.values()), asked
    refused = {
        "all": api.ask("GET", others, token=token), "another": api.ask("GET", others + "/iam-signing-keys", token=token),
        "create": api.ask("POST", others, {"metadata": {"name": "x"}}, token=token),
        "delete": api.ask("DELETE", one, token=token),
    }
    assert all(status == 403 for status, _ in refused.values()), refused
    print("the fleet's ServiceAccount may read and write its ledger, and nothing else")

    # The last one: whoever issues into the Secret of keys may read and replace that one, too.
    token, at = api.token(namespace, "iam"), f"/api/v1/namespaces/{namespace}/secrets"
    keys = api.must("POST", at, {"metadata": {"name": "iam-signing-keys"}})
    one = f"{at}/iam-signing-keys"
    assert api.ask("GET", one, token=token)[0] == 200
    assert api.ask("PUT", one, {**keys, "data": {"a.pem": "e30="}}, token=token)[0] == 200
    for method, where in (("GET", at), ("DELETE", one), ("GET", f"{at}/another")):
        assert api.ask(method, where, token=token)[0] == 403, (method, where)
    print("whoever issues into the Secret of keys may read and replace it, and nothing else")

    api.kubeconfig(scratch / "kubeconfig")
    api.namespace("charts")
    for name, release in (("alone", chart), ("example", example)):
        prefix = "" if name == "alone" else "jwksd."
        fleet = ["--set", f"{prefix}fleet.enabled=true"]
        run_helm("install", name, release, *fleet)
        api.must("PATCH", secret("charts"), {"data": {"key.a": base64.b64encode(b"{}").decode()}}, media=MERGE)
        run_helm("upgrade", name, release, *fleet, "--set", f"{prefix}service.port=8080")
        assert api.must("GET", secret("charts"))["data"] == {"key.a": "e30="}, "an upgrade changed the ledger"
        run_helm("uninstall", name)
        assert api.must("GET", secret("charts"))["data"] == {"key.a": "e30="}, "an uninstallation took the ledger away"
        run_helm("install", name, release, *fleet)
        assert api.must("GET", secret("charts"))["data"] == {"key.a": "e30="}, "installed again, the ledger is lost"
        run_helm("uninstall", name)
        api.must("DELETE", secret("charts"))
    print("installed, upgraded, uninstalled and installed again by Helm: the ledger stays")
finally:
    api.stop()
