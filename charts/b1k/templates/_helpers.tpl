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

{{/* An image of ours. Takes a dict: root, role (toolbox or trainer). */}}
{{- define "b1k.image" -}}
{{- $images := .root.Values.images -}}
{{- $name := printf "%s/%s" (trimSuffix "/" $images.registry) .role -}}
{{- with index $images.digests .role -}}
{{- printf "%s@%s" $name . -}}
{{- else -}}
{{- printf "%s:%s" $name (default .root.Chart.AppVersion $images.tag) -}}
{{- end -}}
{{- end -}}

{{/* What all pods of the chart have in common: no rights, no root. Takes the root. */}}
{{- define "b1k.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.registry.secret }}
imagePullSecrets:
  - name: {{ . }}
{{- end }}
{{- end -}}

{{/* The same of every container. */}}
{{- define "b1k.containerSecurity" -}}
imagePullPolicy: {{ .Values.images.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* Labels that select the pods of a component. Takes a dict: root, component. */}}
{{- define "b1k.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
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
{{- include "b1k.validateParts" . -}}
{{- end -}}

{{/* The same for the parts that are off by default. */}}
{{- define "b1k.validateParts" -}}
{{- if and .Values.quota.create (not .Values.quota.hard) -}}
  {{- fail "quota.create is true and quota.hard is empty: give the limits, or switch the quota off." -}}
{{- end -}}
{{- with .Values.reports -}}
  {{- if and .ingress.enabled (not .enabled) -}}
    {{- fail "reports.ingress.enabled is true, but reports.enabled is false: there is nothing to publish." -}}
  {{- end -}}
  {{- if and .ingress.enabled (not .ingress.host) -}}
    {{- fail "reports.ingress.enabled is true and reports.ingress.host is empty: name the host." -}}
  {{- end -}}
{{- end -}}
{{- with .Values.policyServer -}}
  {{- if and .enabled (not .checkpoint) -}}
    {{- fail "policyServer.enabled is true and policyServer.checkpoint is empty: name a checkpoint folder on the workspace volume." -}}
  {{- end -}}
  {{- if and .autoscaling.enabled (not .enabled) -}}
    {{- fail "policyServer.autoscaling.enabled is true, but policyServer.enabled is false: there is nothing to scale." -}}
  {{- end -}}
  {{- if and .autoscaling.enabled (gt (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas)) -}}
    {{- fail "policyServer.autoscaling.minReplicas is above policyServer.autoscaling.maxReplicas." -}}
  {{- end -}}
{{- end -}}
{{- if and .Values.policyServer.enabled .Values.networkPolicies.create (not .Values.policyServer.clientLabels) -}}
  {{- fail "networkPolicies.create is true and policyServer.clientLabels is empty: nobody could reach the policy server." -}}
{{- end -}}
{{- if and .Values.kueue.enabled (not .Values.kueue.queues) -}}
  {{- fail "kueue.enabled is true and kueue.queues is empty: describe a queue, or switch Kueue off." -}}
{{- end -}}
{{- include "b1k.validateTraining" . -}}
{{- end -}}

{{/* The same for training over several nodes. */}}
{{- define "b1k.validateTraining" -}}
{{- $training := .Values.training.multiNode -}}
{{- if $training.enabled -}}
  {{- if not $training.arguments -}}
    {{- fail "training.multiNode.enabled is true and training.multiNode.arguments is empty: give at least --inputs.dataset and --inputs.statistics." -}}
  {{- end -}}
  {{- range $training.arguments -}}
    {{- if hasPrefix "--workspace" . -}}
      {{- fail "training.multiNode.arguments holds --workspace, which the chart gives: it is the volume of storage.workspace." -}}
    {{- end -}}
  {{- end -}}
  {{- if .Values.storage.singleNode -}}
    {{- fail "training.multiNode.enabled and storage.singleNode are both true: a volume of one node cannot be mounted on several." -}}
  {{- end -}}
  {{- range $name := list "JAX_COORDINATOR_ADDRESS" "JAX_NUM_PROCESSES" "JAX_PROCESS_ID" -}}
    {{- if hasKey $training.environment $name -}}
      {{- fail (printf "training.multiNode.environment sets %s, which the chart computes from training.multiNode.nodes." $name) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- with $training.queue -}}
  {{- if not $.Values.kueue.enabled -}}
    {{- fail "training.multiNode.queue is given, but kueue.enabled is false: nobody would admit the pods." -}}
  {{- end -}}
  {{- if not (hasKey $.Values.kueue.queues .) -}}
    {{- fail (printf "training.multiNode.queue is %s, which is not in kueue.queues: name one of those." .) -}}
  {{- end -}}
{{- end -}}
{{- end -}}
