{{- define "jwksd.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "jwksd.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "jwksd.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "jwksd.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "jwksd.selectorLabels" -}}
app.kubernetes.io/name: {{ include "jwksd.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "jwksd.labels" -}}
{{ include "jwksd.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (replace "+" "_" .Chart.Version) }}
{{- end }}

{{/* The labels of the pods that jwksd runs in. */}}
{{- define "jwksd.podSelector" -}}
{{- if eq .Values.mode "sidecar" }}
{{- toYaml (required "podSelector: the labels of the IAM pods are needed" .Values.podSelector) }}
{{- else }}
{{- include "jwksd.selectorLabels" . }}
{{- end }}
{{- end }}

{{- define "jwksd.serviceAccountName" -}}
{{- if or .Values.serviceAccount.create .Values.serviceAccount.name }}
{{- default (include "jwksd.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- "default" }}
{{- end }}
{{- end }}

{{- define "jwksd.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* The security context of the pod: its volumes' files belong to that group, so that jwksd and the IAM
container may read the key pairs. */}}
{{- define "jwksd.podSecurityContext" -}}
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "jwksd.container" -}}
name: jwksd
image: {{ include "jwksd.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: {{ concat (list "serve" "--config" "/etc/jwksd/jwksd.toml") .Values.extraArgs | toJson }}
env:
  # Another content rolls the pods, for the file is read at the start alone.
  - name: CONFIG_DIGEST
    value: {{ .Values.config | sha256sum | quote }}
  {{- if .Values.fleet.enabled }}
  - name: JWKSD_FLEET_STORE
    value: kubernetes
  - name: JWKSD_FLEET_NAME
    value: {{ .Values.fleet.secretName | quote }}
  {{- if .Values.fleet.issues }}
  - name: JWKSD_ISSUE_SECRET
    value: {{ .Values.keys.secretName | quote }}
  {{- end }}
  {{- end }}
  {{- range $name, $value := .Values.settings }}
  - name: {{ printf "JWKSD_%s" (replace "." "_" $name | upper) }}
    value: {{ if kindIs "slice" $value }}{{ join "," $value | quote }}{{ else }}{{ toString $value | quote }}{{ end }}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - name: jwks
    containerPort: 8080
  - name: jwksd-ops
    containerPort: 9090
# Alive, not ready: a directory without keys must not keep the IAM container, which may be the one to
# issue them, from starting.
startupProbe:
  httpGet:
    path: /livez
    port: jwksd-ops
  periodSeconds: 1
  failureThreshold: 30
# Until a good scan, and with no published key, no traffic comes to the pod.
readinessProbe:
  httpGet:
    path: /readyz
    port: jwksd-ops
  periodSeconds: 5
  failureThreshold: 2
livenessProbe:
  httpGet:
    path: /livez
    port: jwksd-ops
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
resources: {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - name: jwksd-config
    mountPath: /etc/jwksd
    readOnly: true
  - name: signing-keys
    mountPath: /keys
    readOnly: {{ .Values.keys.readOnly }}
  - name: jwksd-state
    mountPath: /var/lib/jwksd
  {{- if .Values.fleet.enabled }}
  # Where Kubernetes' clients look for it; in this container alone.
  - name: jwksd-api
    mountPath: /var/run/secrets/kubernetes.io/serviceaccount
    readOnly: true
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* An item of initContainers: jwksd as a native sidecar, which starts before the IAM container and ends
after it. The pod needs jwksd.volumes, jwksd.podSecurityContext, automountServiceAccountToken: false, a
terminationGracePeriodSeconds over 10, and with fleet.enabled the ServiceAccount of jwksd.rbac.
    {{- include "jwksd.sidecar" .Subcharts.jwksd | nindent 8 }} */}}
{{- define "jwksd.sidecar" -}}
- restartPolicy: Always
  {{- include "jwksd.container" . | nindent 2 }}
{{- end }}

{{/* Items of volumes. The IAM container mounts signing-keys to sign, and jwksd-state, read-only, to follow
current/AUDIENCE.json. With state.persistent, jwksd-state is jwksd.volumeClaimTemplates'. */}}
{{- define "jwksd.volumes" -}}
- name: jwksd-config
  configMap:
    name: {{ include "jwksd.fullname" . }}
- name: signing-keys
  {{- if .Values.keys.volume }}
  {{- toYaml .Values.keys.volume | nindent 2 }}
  {{- else }}
  secret:
    secretName: {{ .Values.keys.secretName }}
    defaultMode: 0440
  {{- end }}
{{- if not .Values.state.persistent }}
- name: jwksd-state
  emptyDir:
    sizeLimit: {{ .Values.state.size }}
{{- end }}
{{- if .Values.fleet.enabled }}
# What automountServiceAccountToken would mount in every container of the pod.
- name: jwksd-api
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: {{ .Values.fleet.tokenExpirationSeconds }}
      - configMap:
          name: kube-root-ca.crt
          items:
            - key: ca.crt
              path: ca.crt
      - downwardAPI:
          items:
            - path: namespace
              fieldRef:
                fieldPath: metadata.namespace
{{- end }}
{{- end }}

{{/* Items of a StatefulSet's volumeClaimTemplates, with state.persistent. */}}
{{- define "jwksd.volumeClaimTemplates" -}}
- metadata:
    name: jwksd-state
  spec:
    accessModes: {{ toJson .Values.state.accessModes }}
    {{- with .Values.state.storageClassName }}
    storageClassName: {{ . }}
    {{- end }}
    resources:
      requests:
        storage: {{ .Values.state.size }}
{{- end }}

{{/* Documents: the ServiceAccount, and with fleet.enabled the ledger's Secret and the right to that one
Secret; with fleet.issues that to the Secret of keys as well. */}}
{{- define "jwksd.rbac" -}}
{{- if .Values.serviceAccount.create }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "jwksd.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
  labels: {{- include "jwksd.labels" . | nindent 4 }}
  {{- with .Values.serviceAccount.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
# The token is mounted in the jwksd container alone.
automountServiceAccountToken: false
{{- end }}
{{- if .Values.fleet.enabled }}
{{- if .Values.fleet.create }}
---
# Without data, so that an upgrade leaves the ledger as it is. Whoever may write it can publish keys.
apiVersion: v1
kind: Secret
metadata:
  name: {{ .Values.fleet.secretName }}
  namespace: {{ .Release.Namespace }}
  labels: {{- include "jwksd.labels" . | nindent 4 }}
  annotations:
    helm.sh/resource-policy: keep
{{- end }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ .Values.fleet.secretName }}
  namespace: {{ .Release.Namespace }}
  labels: {{- include "jwksd.labels" . | nindent 4 }}
rules:
  # No create: what can't be limited to a name. The Secret is made beside this Role.
  - apiGroups: [""]
    resources: [secrets]
    resourceNames: [{{ .Values.fleet.secretName | quote }}]
    verbs: [get, list, watch, update, patch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .Values.fleet.secretName }}
  namespace: {{ .Release.Namespace }}
  labels: {{- include "jwksd.labels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ .Values.fleet.secretName }}
subjects:
  - kind: ServiceAccount
    name: {{ include "jwksd.serviceAccountName" . }}
    namespace: {{ .Release.Namespace }}
{{- if .Values.fleet.issues }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ .Values.keys.secretName }}
  namespace: {{ .Release.Namespace }}
  labels: {{- include "jwksd.labels" . | nindent 4 }}
rules:
  - apiGroups: [""]
    resources: [secrets]
    resourceNames: [{{ .Values.keys.secretName | quote }}]
    verbs: [get, update]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .Values.keys.secretName }}
  namespace: {{ .Release.Namespace }}
  labels: {{- include "jwksd.labels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ .Values.keys.secretName }}
subjects:
  - kind: ServiceAccount
    name: {{ include "jwksd.serviceAccountName" . }}
    namespace: {{ .Release.Namespace }}
{{- end }}
{{- end }}
{{- end }}
