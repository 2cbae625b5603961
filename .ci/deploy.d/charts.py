# The charts come to what the kustomizations come to: the same container, volumes, rights and policies.
#
#   charts.py SCRATCH      which has NAME.yaml of each
import sys, tomllib
import yaml

scratch = sys.argv[1]


def read(name):
    by_kind = {}
    for document in yaml.safe_load_all(open(f"{scratch}/{name}.yaml")):
        if document:
            by_kind.setdefault(document["kind"], []).append(document)
    return by_kind


def without(mapping, *names):
    return {name: value for name, value in mapping.items() if name not in names}


def named(items):
    return {item["name"]: without(item, "name") for item in items}


def summary(documents):
    """What matters of one rendering, by names that all of them share."""
    (workload,) = documents.get("Deployment", []) + documents.get("StatefulSet", [])
    spec = workload["spec"]
    pod = spec["template"]["spec"]
    (jwksd,) = [c for c in pod.get("initContainers", []) + pod["containers"] if c["name"] == "jwksd"]
    jwksd["volumeMounts"].sort(key=lambda mount: mount["mountPath"])
    environment = {v["name"]: v["value"] for v in jwksd.get("env", []) if v["name"] not in ("CONFIG_DIGEST", "JWKSD_FLEET_NAME")}
    volumes = named(pod["volumes"])
    config = volumes["jwksd-config"]["configMap"]["name"]
    (file,) = (c["data"]["jwksd.toml"] for c in documents["ConfigMap"] if c["metadata"]["name"] == config)
    volumes["jwksd-config"] = "the configuration"
    claims = [(claim["metadata"]["name"], claim["spec"]) for claim in spec.get("volumeClaimTemplates", [])]
    (policy,) = documents["NetworkPolicy"]
    ports = {port["port"]: rule.get("from") for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    (jwks,) = [port for s in documents["Service"] for port in s["spec"]["ports"] if port["targetPort"] == "jwks"]
    (budget,) = documents["PodDisruptionBudget"]
    rights = sorted((role["rules"] for role in documents.get("Role", [])), key=str)
    return {
        "kind": workload["kind"], "replicas": spec["replicas"], "strategy": spec.get("strategy"), "claims": claims,
        "pod": without(pod, "initContainers", "containers", "volumes", "serviceAccountName"), "volumes": volumes,
        "container": without(jwksd, "env", "imagePullPolicy", "restartPolicy"), "environment": environment,
        "configuration": tomllib.loads(file), "ports": ports, "service": jwks, "rights": rights,
        "budget": budget["spec"]["maxUnavailable"],
        "monitor": [m["spec"]["podMetricsEndpoints"] for m in documents.get("PodMonitor", [])],
    }


for kustomized, chart in (("base", "sidecar"), ("persistent", "sidecar-persistent"), ("fleet", "sidecar-fleet"),
                          ("rotation", "sidecar-rotation")):
    one, other = summary(read(kustomized)), summary(read(chart))
    for member, value in one.items():
        assert other[member] == value, f"{member} of {chart}:\n{other[member]}\nand of {kustomized}:\n{value}"
alone, beside = summary(read("alone-fleet")), summary(read("sidecar-fleet"))
alone["ports"]["http"] = beside["ports"]["http"]  # the IAM container's own
assert alone == beside, [(m, alone[m], beside[m]) for m in alone if alone[m] != beside[m]]
many = read("alone-many")
(workload,) = many["StatefulSet"]
(container,) = workload["spec"]["template"]["spec"]["containers"]
environment = {variable["name"]: variable["value"] for variable in container["env"]}
assert environment["JWKSD_LIFECYCLE_TOKEN_LIFETIME"] == "15m" and environment["JWKSD_PUBLISH_CERTIFICATES"] == "true"
assert environment["JWKSD_KEYS_AUDIENCES"] == "a,b" and container["image"].startswith("jwksd@sha256:")
assert "PodDisruptionBudget" not in many, "a budget for one replica blocks drains"
assert "ServiceAccount" not in many and "Secret" not in many
(policy,) = many["NetworkPolicy"]
assert policy["spec"]["egress"][0]["to"] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}], policy
assert read("alone")["NetworkPolicy"][0]["spec"]["policyTypes"] == ["Ingress", "Egress"], "jwksd alone calls nobody"
print("the charts come to what the kustomizations come to, alone and as a sidecar")
