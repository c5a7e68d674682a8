{{/* Name of a volume's claim. Takes a dict: root, name (dataset or workspace). */}}
{{- define "b1k.storage.claimName" -}}
{{- $volume := index .root.Values.storage .name -}}
{{- default (printf "%s-%s" (include "b1k.fullname" .root) .name) $volume.existingClaim -}}
{{- end -}}

{{/* A claim, unless one is given. Takes a dict: root, name (dataset or workspace). */}}
{{- define "b1k.storage.claim" -}}
{{- $volume := index .root.Values.storage .name -}}
{{- if not $volume.existingClaim }}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ include "b1k.storage.claimName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "b1k.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
  {{- if $volume.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
spec:
  accessModes: [{{ $volume.accessMode }}]
  {{- with $volume.storageClass }}
  storageClassName: {{ . | quote }}
  {{- end }}
  resources:
    requests:
      storage: {{ $volume.size }}
{{- end }}
{{- end -}}
