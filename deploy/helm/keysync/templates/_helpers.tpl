{{- define "keysync.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 47 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 47 characters: a CronJob's name can have 52, and `-once` may be appended. */}}
{{- define "keysync.fullname" -}}
{{- $name := include "keysync.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 47 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 47 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 47 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Shards have another name: a Service cannot become headless, which a change of the mode would require. */}}
{{- define "keysync.serviceName" -}}
{{- include "keysync.fullname" . -}}{{- if eq .Values.mode "sharded" -}}-shards{{- end -}}
{{- end -}}

{{- define "keysync.selector" -}}
app.kubernetes.io/name: {{ include "keysync.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "keysync.labels" -}}
{{ include "keysync.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "keysync.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "keysync.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "keysync.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* "true" if replicas elect a leader. `leader_election: {}` enables it, null does not. */}}
{{- define "keysync.elects" -}}
{{- if kindIs "map" .Values.config.leader_election -}}true{{- end -}}
{{- end -}}

{{- define "keysync.lease" -}}
{{- .Values.config.leader_election.lease | default (include "keysync.fullname" .) -}}
{{- end -}}

{{/* The mounted configuration: the values, and settings that only the chart knows. */}}
{{- define "keysync.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- if and .Values.workloadIdentity.enabled (not (hasKey $config "credential")) -}}
{{- $_ := set $config "credential" (dict "type" "workload_identity") -}}
{{- end -}}
{{- if ne .Values.mode "cronjob" -}}
{{- $_ := set $config "listen" (printf "0.0.0.0:%d" (int .Values.port)) -}}
{{- end -}}
{{- if include "keysync.elects" . -}}
{{- $_ := set $config "leader_election" (mergeOverwrite (dict "lease" (include "keysync.lease" .)) $config.leader_election) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The settings that need a restart of the daemon; it reloads all others. */}}
{{- define "keysync.restartChecksum" -}}
{{- pick .Values.config "notify" "leader_election" | toJson | sha256sum -}}
{{- end -}}

{{/* Whole seconds, rounded up, of a duration such as 1m30s or 500ms. */}}
{{- define "keysync.seconds" -}}
{{- $total := ternary 1 0 (regexMatch "[0-9]ms" .) -}}
{{- $whole := regexReplaceAll "[0-9]+ms" . "" -}}
{{- range $unit, $seconds := dict "d" 86400 "h" 3600 "m" 60 "s" 1 -}}
{{- $number := regexFind (printf "[0-9]+%s" $unit) $whole | trimSuffix $unit | default "0" -}}
{{- $total = add $total (mul $seconds (atoi $number)) -}}
{{- end -}}
{{- $total -}}
{{- end -}}

{{/* Longer than keysync needs to end, so that Kubernetes never kills it during a write. */}}
{{- define "keysync.gracePeriod" -}}
{{- $shutdown := "10s" -}}
{{- if kindIs "map" .Values.config.timeouts -}}
{{- $shutdown = .Values.config.timeouts.shutdown | default $shutdown -}}
{{- end -}}
{{- add 20 (include "keysync.seconds" $shutdown | atoi) -}}
{{- end -}}
