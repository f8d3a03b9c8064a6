{{/* Values that contradict each other, which the schema cannot express. */}}
{{- define "keysync.check" -}}
{{- $values := .Values -}}
{{- $config := .Values.config -}}
{{- $elects := include "keysync.elects" . -}}
{{- if hasKey $config "listen" -}}
{{- fail "config.listen: the chart sets it; choose the port with `port`" -}}
{{- end -}}
{{- if and (eq $values.mode "sharded") (lt (int $values.shards) 2) -}}
{{- fail "mode: sharded needs `shards`, 2 or more" -}}
{{- end -}}
{{- if and (eq $values.mode "daemon") (gt (int $values.shards) 1) -}}
{{- fail (printf "shards: %d with mode: daemon would not serve all accounts; set mode: sharded" (int $values.shards)) -}}
{{- end -}}
{{- if eq $values.mode "cronjob" -}}
{{- if gt (int $values.replicas) 1 -}}
{{- fail "replicas: a CronJob has one writer at a time; for several processes set `shards`" -}}
{{- end -}}
{{- if $elects -}}
{{- fail "config.leader_election: only the daemon stands for election; remove it, or set mode: daemon or sharded" -}}
{{- end -}}
{{- if $values.metrics.serviceMonitor.enabled -}}
{{- fail "metrics.serviceMonitor: a CronJob's pod is gone before it is scraped; set cronjob.pushGateway instead" -}}
{{- end -}}
{{- else if and (gt (int $values.replicas) 1) (not $elects) -}}
{{- fail (printf "replicas: %d needs config.leader_election (`leader_election: {}` will do), or all of them would write" (int $values.replicas)) -}}
{{- end -}}
{{- if and $elects (gt (int $values.replicas) 1) $config.leader_election.identity -}}
{{- fail "config.leader_election.identity: it would be the same for all replicas; remove it" -}}
{{- end -}}
{{- if and $values.workloadIdentity.enabled $values.serviceAccount.create (not $values.workloadIdentity.clientId) -}}
{{- fail "workloadIdentity.clientId: the client id of the managed identity is missing (or set workloadIdentity.enabled: false)" -}}
{{- end -}}
{{- if and $values.caBundle.configMap $values.caBundle.secret -}}
{{- fail "caBundle: a ConfigMap or a Secret, not both" -}}
{{- end -}}
{{- end -}}
