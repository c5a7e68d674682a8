{{- define "b1k.policy.name" -}}
{{ include "b1k.fullname" . }}-policy
{{- end -}}

{{- define "b1k.policy.labels" -}}
{{ include "b1k.labels" . }}
app.kubernetes.io/component: policy
{{- end -}}
