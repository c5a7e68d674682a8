{{- define "b1k.reports.name" -}}
{{ include "b1k.fullname" . }}-reports
{{- end -}}

{{- define "b1k.reports.labels" -}}
{{ include "b1k.labels" . }}
app.kubernetes.io/component: reports
{{- end -}}
