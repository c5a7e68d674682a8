{{/* Prefix of all names. */}}
{{- define "b1k.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels of every object. */}}
{{- define "b1k.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Refuses combinations of values that would install something that cannot work. */}}
{{- define "b1k.validate" -}}
{{- if not .Values.serviceAccount.create -}}
  {{- if not .Values.serviceAccount.name -}}
    {{- fail "serviceAccount.create is false and serviceAccount.name is empty: name the account that exists." -}}
  {{- end -}}
  {{- if .Values.serviceAccount.annotations -}}
    {{- fail "serviceAccount.annotations would be ignored, as serviceAccount.create is false: annotate that account itself." -}}
  {{- end -}}
  {{- if .Values.registry.secret -}}
    {{- fail "registry.secret would be ignored, as serviceAccount.create is false: add the pull secret to that account itself." -}}
  {{- end -}}
{{- end -}}
{{- range $name, $volume := pick .Values.storage "dataset" "workspace" -}}
  {{- if and (eq $volume.accessMode "ReadWriteOnce") (not $.Values.storage.singleNode) -}}
    {{- fail (printf "storage.%s.accessMode is ReadWriteOnce, but storage.singleNode is false: pods on other nodes could not mount the volume. Use ReadWriteMany, or set storage.singleNode." $name) -}}
  {{- end -}}
  {{- if and $volume.existingClaim $volume.storageClass -}}
    {{- fail (printf "storage.%s.storageClass would be ignored, as storage.%s.existingClaim is given: drop one of them." $name $name) -}}
  {{- end -}}
{{- end -}}
{{- if and .Values.s3.endpoint (not .Values.s3.secret) -}}
  {{- fail "s3.endpoint is given without s3.secret: name the secret with its keys." -}}
{{- end -}}
{{- if and (eq .Values.wandb.mode "online") (not .Values.wandb.secret) -}}
  {{- fail "wandb.mode is online without wandb.secret: name the secret with WANDB_API_KEY, or use offline." -}}
{{- end -}}
{{- end -}}
