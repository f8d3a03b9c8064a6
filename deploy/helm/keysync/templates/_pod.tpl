{{/*
The pod of every workload. Takes a mapping:
  root      the top-level scope
  args      the command of keysync with its options
  daemon    whether it runs until a signal ends it
  env       its own variables, a list
  labels    its own labels, a mapping
*/}}
{{- define "keysync.pod" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
metadata:
  labels:
    {{- include "keysync.selector" $root | nindent 4 }}
    {{- with .labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- if $values.workloadIdentity.enabled }}
    azure.workload.identity/use: "true"
    {{- end }}
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if or .daemon $values.podAnnotations }}
  annotations:
    {{- if .daemon }}
    # Of the settings that need a restart; the daemon reloads all others by itself.
    checksum/restart: {{ include "keysync.restartChecksum" $root }}
    {{- end }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
spec:
  serviceAccountName: {{ include "keysync.serviceAccountName" $root }}
  # Only the Lease needs the Kubernetes API. Workload identity has its own token.
  automountServiceAccountToken: {{ if and .daemon (include "keysync.elects" $root) }}true{{ else }}false{{ end }}
  enableServiceLinks: false
  {{- if not .daemon }}
  restartPolicy: Never
  {{- end }}
  terminationGracePeriodSeconds: {{ include "keysync.gracePeriod" $root }}
  {{- include "keysync.podSecurity" $root | nindent 2 }}
  {{- with $values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with include "keysync.placement" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  containers:
    - name: keysync
      image: {{ include "keysync.image" $root }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      args: {{ toJson .args }}
      {{- include "keysync.containerSecurity" $root | nindent 6 }}
      env:
        {{- include "keysync.env" . | nindent 8 }}
      {{- with $values.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if .daemon }}
      ports:
        - name: http
          containerPort: {{ $values.port }}
      startupProbe:
        httpGet:
          path: /healthz
          port: http
        periodSeconds: 2
        timeoutSeconds: 5
        failureThreshold: 60
      livenessProbe:
        httpGet:
          path: /healthz
          port: http
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      readinessProbe:
        httpGet:
          path: /readyz
          port: http
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 2
      {{- end }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        {{- include "keysync.mounts" $root | nindent 8 }}
  volumes:
    {{- include "keysync.volumes" $root | nindent 4 }}
{{- end -}}

{{- define "keysync.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  {{- range $key := list "runAsUser" "runAsGroup" "fsGroup" }}
  {{- if not (kindIs "invalid" (get $.Values $key)) }}
  {{ $key }}: {{ get $.Values $key | int }}
  {{- end }}
  {{- end }}
  {{- if not (kindIs "invalid" .Values.fsGroup) }}
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "keysync.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{- define "keysync.placement" -}}
{{- $values := .root.Values -}}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml $values.topologySpreadConstraints | nindent 2 }}
{{- else if and .daemon (or (gt (int $values.replicas) 1) (gt (int $values.shards) 1)) }}
topologySpreadConstraints:
  # A standby on the same node would be lost with the leader.
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "keysync.selector" .root | nindent 8 }}
        {{- with .labels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end }}
{{- end -}}

{{- define "keysync.env" -}}
{{- $values := .root.Values -}}
- name: KEYSYNC_CONFIG
  value: /etc/keysync/keysync.yaml
- name: KEYSYNC_LOG_FORMAT
  value: json
- name: KEYSYNC_LOG_LEVEL
  value: {{ $values.logLevel }}
{{- with .env }}
{{ toYaml . }}
{{- end }}
{{- if or $values.caBundle.configMap $values.caBundle.secret }}
- name: SSL_CERT_FILE
  value: /etc/keysync-ca/{{ $values.caBundle.key }}
{{- end }}
{{- with $values.proxy }}
{{- if .url }}
- name: HTTPS_PROXY
  value: {{ .url | quote }}
- name: NO_PROXY
  # Calls to the Kubernetes API, for the Lease, never use the proxy.
  value: {{ prepend .noProxy "$(KUBERNETES_SERVICE_HOST)" | join "," | quote }}
{{- end }}
{{- end }}
{{- with $values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "keysync.mounts" -}}
- name: config
  mountPath: /etc/keysync
  readOnly: true
{{- if or .Values.caBundle.configMap .Values.caBundle.secret }}
- name: ca
  mountPath: /etc/keysync-ca
  readOnly: true
{{- end }}
{{- with .Values.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "keysync.volumes" -}}
- name: config
  configMap:
    name: {{ include "keysync.fullname" . }}
{{- with .Values.caBundle }}
{{- if .configMap }}
- name: ca
  configMap:
    name: {{ .configMap }}
{{- else if .secret }}
- name: ca
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    items:
      - key: {{ .key }}
        path: {{ .key }}
{{- end }}
{{- end }}
{{- with .Values.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
