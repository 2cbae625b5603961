step "Helm"
if command -v helm > /dev/null; then
    helm=helm
else
    helm=$PWD/target/ci-tools/helm
    [ -x "$helm" ] || GOBIN=$PWD/target/ci-tools go install helm.sh/helm/v3/cmd/helm@v3.22.0 ||
        fail "helm or Go is needed to render the charts"
fi
# Helm keeps nothing of this outside the scratch directory.
export HELM_CACHE_HOME=$scratch/helm HELM_CONFIG_HOME=$scratch/helm HELM_DATA_HOME=$scratch/helm
cp -r deploy/helm "$scratch/charts"
chart=$scratch/charts/jwksd example=$scratch/charts/example-iam
"$helm" dependency build "$example" > /dev/null
"$helm" lint --strict --quiet --kube-version 1.29 "$chart" "$example"
fleet=(--set fleet.enabled=true)
# What a sidecar's pod calls is limited only where its chart says what else it calls.
calls='[{"ports":[{"port":5432}]}]'
# rendered NAME CHART OPTIONS...: a chart's manifests, by the schemas of the first version of Kubernetes with
# native sidecars on by default, and of the newest one known here.
rendered() {
    local name=$1
    for kubernetes in 1.29 1.37; do
        "$helm" template iam "$2" --namespace iam --kube-version "$kubernetes" "${@:3}" > "$scratch/$name.yaml"
        "$tools/bin/kubernetes-validate" --strict --quiet --no-warn -k "$kubernetes" "$scratch/$name.yaml"
    done
}
monitored=(--set podMonitor.enabled=true)
rendered alone "$chart"
rendered alone-persistent "$chart" --set state.persistent=true
rendered alone-fleet "$chart" "${fleet[@]}" "${monitored[@]}"
rendered alone-many "$chart" "${fleet[@]}" --set state.persistent=true,state.storageClassName=fast,replicas=1 \
    --set 'settings.lifecycle\.token_lifetime=15m,settings.publish\.certificates=true' \
    --set 'settings.keys\.audiences={a,b},image.digest=sha256:'"$(printf %064d 0)" \
    --set 'fleet.apiAddresses={10.0.0.1/32},nodeSelector.disk=fast,podLabels.team=iam,podAnnotations.note=x' \
    --set 'imagePullSecrets[0].name=registry,priorityClassName=high,service.type=NodePort,fleet.create=false' \
    --set 'tolerations[0].operator=Exists,extraEnv[0].name=TZ,extraEnv[0].value=UTC,serviceAccount.create=false' \
    --set-json 'keys.volume={"projected":{"defaultMode":288,"sources":[{"secret":{"name":"one"}}]}}'
sidecar=(--set jwksd.podMonitor.enabled=true)
rendered sidecar "$example" "${sidecar[@]}"
rendered sidecar-persistent "$example" "${sidecar[@]}" --set jwksd.state.persistent=true
rendered sidecar-fleet "$example" "${sidecar[@]}" --set jwksd.fleet.enabled=true \
    --set-json "jwksd.networkPolicy.extraEgress=$calls"
rendered sidecar-rotation "$example" "${sidecar[@]}" --set jwksd.fleet.enabled=true,jwksd.fleet.issues=true \
    --set 'jwksd.settings.rotation\.every=90d' --set-json "jwksd.networkPolicy.extraEgress=$calls"
for name in sidecar sidecar-persistent sidecar-fleet sidecar-rotation; do
    "$python" .ci/deploy.d/manifests.py "$scratch/$name.yaml" deploy/kubernetes/crds.schema.json "$scratch"
done
for overlay in base persistent fleet rotation; do
    [ -s "$scratch/$overlay.yaml" ] || "${kustomize[@]}" "deploy/kubernetes/$([ $overlay = base ] || echo overlays/)$overlay" > "$scratch/$overlay.yaml"
done
"$python" .ci/deploy.d/charts.py "$scratch"
"$binary" config --config "$scratch/sidecar.toml" > /dev/null
# Mistakes have to be noticed before anything is applied.
for mistake in replicas=0 mode=beside mode=sidecar keys.secretname=x fleet.enabled=maybe fleet.issues=1 image.digest=latest state.size=many \
    terminationGracePeriodSeconds=5 'settings.Log.Level=debug' fleet.tokenExpirationSeconds=60; do
    if "$helm" template iam "$chart" --kube-version 1.29 --set "$mistake" > /dev/null 2> "$scratch/mistake"; then fail "values with $mistake are accepted"; fi
    grep -q "schema" "$scratch/mistake" || { cat "$scratch/mistake"; fail "the schema of values does not know of $mistake"; }
done
echo "the schema of values refuses mistakes"
# The real API server has the last word, where it can be had.
"$python" .ci/deploy.d/applied.py "$scratch" "$helm" "$chart" "$example"
