{{/* The service account of the pods of a run. */}}
{{- define "b1k.runner.name" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (printf "%s-runner" (include "b1k.fullname" .)) .Values.serviceAccount.name -}}
{{- else -}}
{{- .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "b1k.runner.labels" -}}
{{ include "b1k.labels" . }}
app.kubernetes.io/component: runner
{{- end -}}
