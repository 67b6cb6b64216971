{{- define "weir.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels that never change, for selectors. Takes (dict "root" $ "component" NAME). */}}
{{- define "weir.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | trunc 63 }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "weir.labels" -}}
{{ include "weir.selector" . }}
app.kubernetes.io/part-of: weir
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "weir.image" -}}
{{- printf "%s%s:%s" .root.Values.image.registry .name (default .root.Chart.AppVersion .root.Values.image.tag) -}}
{{- end -}}

{{- define "weir.any" -}}
{{- if eq .Values.ipFamily "IPv6" }}[::]{{ else }}0.0.0.0{{ end -}}
{{- end -}}

{{- define "weir.secretName" -}}
{{- default (printf "%s-secrets" (include "weir.fullname" .)) .Values.secrets.existingSecret -}}
{{- end -}}

{{- define "weir.writesSecrets" -}}
{{- $given := or .Values.secrets.adminToken .Values.secrets.joinToken .Values.secrets.jwtSecretKey .Values.secrets.redisPassword .Values.secrets.jwtSecretKeyPrevious -}}
{{- if and .Values.secrets.existingSecret (or $given .Values.secrets.generate) -}}
{{- fail "secrets: existingSecret excludes generate, adminToken, joinToken, jwtSecretKey, jwtSecretKeyPrevious and redisPassword" -}}
{{- end -}}
{{- if or $given .Values.secrets.generate }}yes{{ end -}}
{{- end -}}

{{- define "weir.providersSecret" -}}
{{- default (printf "%s-providers" (include "weir.fullname" .)) .Values.secrets.providersExistingSecret -}}
{{- end -}}

{{- define "weir.hasDatabase" -}}
{{- if or .Values.database.url .Values.database.existingSecret }}yes{{ end -}}
{{- end -}}

{{/* Takes root, port. */}}
{{- define "weir.controlPlaneURL" -}}
http://{{ include "weir.fullname" .root }}-control-plane:{{ .port }}
{{- end -}}

{{/* What Pod Security "restricted" asks of a pod, and an id that belongs to nobody. */}}
{{- define "weir.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "weir.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Kubernetes 1.30 can wait by itself; before, the image must hold sleep. Takes seconds, root. */}}
{{- define "weir.preStop" -}}
preStop:
{{- if semverCompare ">=1.30.0-0" .root.Capabilities.KubeVersion.Version }}
  sleep: {seconds: {{ .seconds }}}
{{- else }}
  exec: {command: [sleep, {{ .seconds | quote }}]}
{{- end }}
{{- end -}}

{{- define "weir.adminProbes" -}}
startupProbe:
  httpGet: {path: /healthz, port: {{ .port }}}
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet: {path: /healthz, port: {{ .port }}}
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: {{ .port }}}
  periodSeconds: 5
  timeoutSeconds: 3
{{- end -}}

{{- define "weir.logEnv" -}}
- {name: LOG_LEVEL, value: {{ .Values.log.level | quote }}}
{{- if .Values.log.debug }}
- {name: DEBUG, value: "true"}
{{- end }}
{{- end -}}

{{- define "weir.extraEnv" -}}
{{- range $name, $value := . }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end -}}

{{/* The volume of a journal. Takes root, journal, claim. */}}
{{- define "weir.journalVolume" -}}
{{- if eq .journal.type "persistentVolumeClaim" }}
- name: journal
  persistentVolumeClaim: {claimName: {{ .claim }}}
{{- else }}
- name: journal
  emptyDir: {sizeLimit: {{ .journal.size }}}
{{- end }}
{{- end -}}

{{- define "weir.claim" -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "weir.labels" . | nindent 4 }}
spec:
  accessModes: [ReadWriteOnce]
  {{- with .storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources: {requests: {storage: {{ .size }}}}
{{- end -}}

{{- define "weir.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "weir.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "weir.labels" . | nindent 4 }}
automountServiceAccountToken: false
{{- end -}}

{{/* The head that every pod of the mesh has. Takes root, component, pod (its values). */}}
{{- define "weir.podHead" -}}
serviceAccountName: {{ include "weir.fullname" .root }}-{{ .component }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - {name: {{ . }}}
  {{- end }}
{{- end }}
securityContext: {{- include "weir.podSecurity" .root | nindent 2 }}
{{- with .pod.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Values that each are right and together are not. */}}
{{- define "weir.check" -}}
{{- $v := .Values -}}
{{- if and (eq $v.mesh.plaintext "behindNetworkPolicy") (not $v.networkPolicy.enabled) -}}
{{- fail "mesh.plaintext: behindNetworkPolicy needs networkPolicy.enabled; set mesh.plaintext=anywhere if the network is guarded by other means" -}}
{{- end -}}
{{- if and (gt (int $v.controlPlane.replicas) 1) (not (include "weir.hasDatabase" .)) -}}
{{- fail "controlPlane.replicas: more than one needs database.url or database.existingSecret, because SQLite is one file" -}}
{{- end -}}
{{- if and (not $v.redis.enabled) (not $v.redis.external.url) (not $v.redis.external.existingSecret) -}}
{{- fail "redis: enabled, external.url or external.existingSecret is needed" -}}
{{- end -}}
{{- if and $v.redis.enabled (or $v.redis.external.url $v.redis.external.existingSecret) -}}
{{- fail "redis: set enabled=false to use the external one" -}}
{{- end -}}
{{- if and $v.database.url $v.database.existingSecret -}}
{{- fail "database: either url or existingSecret" -}}
{{- end -}}
{{- if and (eq $v.gateway.journal.type "persistentVolumeClaim") (or $v.gateway.autoscaling.enabled (gt (int $v.gateway.replicas) 1)) -}}
{{- fail "gateway.journal.type: a claim serves one replica; use emptyDir, or replicas=1 without autoscaling" -}}
{{- end -}}
{{- if and $v.gateway.ingress.enabled (not $v.gateway.ingress.tlsSecretName) -}}
{{- fail "gateway.ingress.tlsSecretName: tokens travel through the Ingress, so it must have HTTPS" -}}
{{- end -}}
{{- end -}}

{{- define "weir.policyHead" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "weir.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "weir.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "weir.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
{{- end -}}

{{- define "weir.dns" -}}
- to:
    - namespaceSelector: {}
      podSelector: {matchLabels: {k8s-app: kube-dns}}
  ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end -}}
