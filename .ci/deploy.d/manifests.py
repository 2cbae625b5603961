# What no schema says: custom resources, names that must agree, and what we promise of the sidecar.
import json, os, sys
import jsonschema, yaml
rendered, schema, scratch = sys.argv[1:]
documents = [document for document in yaml.safe_load_all(open(rendered)) if document]
by_kind = {}
for document in documents:
    by_kind.setdefault(document["kind"], []).append(document)
custom = [d for d in documents if d["kind"] in ("PodMonitor", "Certificate", "Issuer")]
assert custom
validator = jsonschema.Draft202012Validator(json.load(open(schema)))
for document in custom:
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
    assert not errors, (document["kind"], document["metadata"]["name"], errors)
(workload,) = by_kind.get("Deployment", []) + by_kind.get("StatefulSet", [])
template = workload["spec"]["template"]
pod = template["spec"]
(jwksd,) = pod["initContainers"]
containers = [jwksd, *pod["containers"]]
assert jwksd["name"] == "jwksd" and jwksd["restartPolicy"] == "Always", "no native sidecar"
security = jwksd["securityContext"]
assert security == {
    "runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}, security
assert pod["securityContext"]["fsGroup"] == 65532 and not pod["automountServiceAccountToken"]
assert jwksd["resources"] == {"requests": {"cpu": "5m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}}
ports = {port["name"]: port["containerPort"] for container in containers for port in container["ports"]}
for probe, path in ("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz"):
    get = jwksd[probe]["httpGet"]
    assert get["path"] == path and ports[get["port"]] == 9090, (probe, get)
volumes = {volume["name"]: volume for volume in pod["volumes"]}
claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
mounts = {}
for container in containers:
    for mount in container["volumeMounts"]:
        assert mount["name"] in set(volumes) | claims, f"no volume {mount['name']}"
        assert "subPath" not in mount and "subPathExpr" not in mount, f"{mount} would never be updated"
        mounts[container["name"], mount["mountPath"]] = mount
assert {m["name"] for m in mounts.values()} == set(volumes) | claims, "a volume that nobody mounts"
for name, volume in volumes.items():
    kinds = [kind for kind in volume if kind != "name"]
    assert len(kinds) == 1, f"{name} is {kinds}"
is_issuer = "--init" in jwksd["args"]
assert bool(mounts["jwksd", "/keys"].get("readOnly")) != is_issuer
assert mounts["iam", "/keys"]["readOnly"] and mounts["jwksd", "/keys"]["name"] == mounts["iam", "/keys"]["name"]
for volume in volumes.values():
    for source in [volume, *(volume.get("projected", {}).get("sources", []))]:
        secret = source.get("secret")
        if secret and "secretName" in secret:
            assert "items" not in secret, "mount the whole Secret"
        if secret and "name" in secret:
            made = {c["spec"]["secretName"] for c in by_kind.get("Certificate", [])}
            assert secret["name"] in made, f"nobody makes the Secret {secret['name']}"
    modes = volume.get("secret") or volume.get("projected")
    assert not modes or modes["defaultMode"] == 0o440, modes
for certificate in by_kind.get("Certificate", []):
    assert certificate["spec"]["issuerRef"]["name"] in {i["metadata"]["name"] for i in by_kind["Issuer"]}
labels = template["metadata"]["labels"]
def selects(selector):
    assert selector and selector.items() <= labels.items(), f"{selector} selects none of {labels}"
selects(workload["spec"]["selector"]["matchLabels"])
for service in by_kind["Service"]:
    selects(service["spec"]["selector"])
    for port in service["spec"]["ports"]:
        assert port["targetPort"] in ports, port
for monitor in by_kind["PodMonitor"]:
    selects(monitor["spec"]["selector"]["matchLabels"])
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        assert ports[endpoint["port"]] == 9090 and endpoint["path"] == "/metrics", endpoint
(policy,) = by_kind["NetworkPolicy"]
selects(policy["spec"]["podSelector"]["matchLabels"])
for rule in policy["spec"]["ingress"]:
    names = {port["port"] for port in rule["ports"]}
    assert names <= set(ports), names
    assert "jwksd-ops" not in names or rule.get("from"), "health and metrics are open to everybody"
for budget in by_kind.get("PodDisruptionBudget", []):
    selects(budget["spec"]["selector"]["matchLabels"])
    assert workload["spec"]["replicas"] > 1, "a budget for one replica blocks drains"
(config,) = (c for c in by_kind["ConfigMap"] if c["metadata"]["name"] == volumes["jwksd-config"]["configMap"]["name"])
# A fleet's ledger: one Secret by name and without data, for jwksd alone, and a way to the API server.
tokens = {
    name for name, volume in volumes.items()
    if any("serviceAccountToken" in source for source in volume.get("projected", {}).get("sources", []))
}
environment = {variable["name"]: variable["value"] for variable in jwksd.get("env", [])}
assert bool(tokens) == (environment.get("JWKSD_FLEET_STORE") == "kubernetes") == bool(by_kind.get("Role")), tokens
for (container, path), mount in mounts.items():
    assert (mount["name"] in tokens) == (path == "/var/run/secrets/kubernetes.io/serviceaccount"), mount
    assert mount["name"] not in tokens or (container == "jwksd" and mount["readOnly"]), (container, mount)
if tokens:
    (ledger,) = by_kind["Secret"]
    issued_into = environment.get("JWKSD_ISSUE_SECRET")
    rights = {"jwksd-ledger": ["get", "list", "watch", "update", "patch"], issued_into: ["get", "update"]}
    mounted = {volume.get("secret", {}).get("secretName") for volume in volumes.values()}
    assert issued_into is None or issued_into in mounted, issued_into
    assert not {"data", "stringData"} & set(ledger), "applying the ledger again would overwrite it"
    assert len(by_kind["Role"]) == len(by_kind["RoleBinding"]) == len(set(rights) - {None})
    for role, binding in zip(by_kind["Role"], by_kind["RoleBinding"]):
        name = role["metadata"]["name"]
        assert role["rules"] == [{
            "apiGroups": [""], "resources": ["secrets"], "resourceNames": [name], "verbs": rights[name],
        }], role
        account = {"kind": "ServiceAccount", "name": pod["serviceAccountName"], "namespace": binding["metadata"]["namespace"]}
        assert binding["subjects"] == [account] and binding["roleRef"]["name"] == name, binding
    assert account["name"] in {a["metadata"]["name"] for a in by_kind["ServiceAccount"]}
    assert "Egress" in policy["spec"]["policyTypes"], "nothing lets jwksd out where the rest is shut in"
    assert [port["port"] for port in policy["spec"]["egress"][0]["ports"]] == [443, 6443]
name = os.path.basename(rendered).removesuffix(".yaml")
open(f"{scratch}/{name}.toml", "w").write(config["data"]["jwksd.toml"])
print(f"{name}: {len(documents)} resources, {len(custom)} of them custom")
