{{/* Values that contradict each other, which the schema cannot express. */}}
{{- define "keysync.check" -}}
{{- $values := .Values -}}
{{- $config := .Values.config -}}
{{- $elects := include "keysync.elects" . -}}
{{- if hasKey $config "listen" -}}
{{- fail "config.listen: the chart sets it; set `port` instead" -}}
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
{{- fail "config.leader_election: a CronJob does not use it; remove it, or set mode: daemon or sharded" -}}
{{- end -}}
{{- if $values.metrics.serviceMonitor.enabled -}}
{{- fail "metrics.serviceMonitor: a CronJob's pod ends before Prometheus scrapes it; set cronjob.pushGateway instead" -}}
{{- end -}}
{{- else if and (gt (int $values.replicas) 1) (not $elects) -}}
{{- fail (printf "replicas: %d needs config.leader_election (`leader_election: {}` is enough); otherwise all replicas would write" (int $values.replicas)) -}}
{{- end -}}
{{- if and $elects (gt (int $values.replicas) 1) $config.leader_election.identity -}}
{{- fail "config.leader_election.identity: all replicas would have the same; remove it" -}}
{{- end -}}
{{- if and $values.workloadIdentity.enabled $values.serviceAccount.create (not $values.workloadIdentity.clientId) -}}
{{- fail "workloadIdentity.clientId: the client id of the managed identity is missing (or set workloadIdentity.enabled: false)" -}}
{{- end -}}
{{- if and $values.caBundle.configMap $values.caBundle.secret -}}
{{- fail "caBundle: set configMap or secret, not both" -}}
{{- end -}}
{{- end -}}
