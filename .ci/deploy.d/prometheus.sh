step "Prometheus"
(cd deploy/prometheus && promtool check rules --lint=all --lint-fatal rules.yml && promtool test rules rules_test.yml)

step "Grafana, and the names of metrics"
"$python" .ci/deploy.d/names.py "$scratch"
promtool check rules "$scratch/dashboard.yml"
