{{- define "b1k.training.labels" -}}
{{ include "b1k.labels" . }}
app.kubernetes.io/component: training
{{- end -}}

{{/* A JobSet cannot be changed, so its name holds a digest of what it runs: other values make another one. The
rest is short enough for host names NAME-nodes-0-127 of 63 characters. */}}
{{- define "b1k.training.name" -}}
{{- printf "%s-train-%s" (include "b1k.fullname" . | trunc 36 | trimSuffix "-") (include "b1k.training.spec" . | sha256sum | trunc 8) -}}
{{- end -}}

{{- define "b1k.training.spec" -}}
{{- $training := .Values.training.multiNode -}}
# One process that ends takes the others with it. All start again when all are gone, and continue from the last
# saved state; a mistake in the arguments (exit code 2) would only be made again.
failurePolicy:
  maxRestarts: {{ $training.maxRestarts }}
  restartStrategy: BlockingRecreate
  rules:
    - name: mistake
      action: FailJobSet
      onJobFailureReasons: [PodFailurePolicy]
network:
  enableDNSHostnames: true
  publishNotReadyAddresses: true
replicatedJobs:
  - name: nodes
    replicas: 1
    template:
      metadata:
        labels:
          {{- include "b1k.training.labels" . | nindent 10 }}
      spec:
        completionMode: Indexed
        completions: {{ $training.nodes }}
        parallelism: {{ $training.nodes }}
        backoffLimit: 0
        podFailurePolicy:
          rules:
            - action: FailJob
              onExitCodes: {containerName: trainer, operator: In, values: [2]}
              # Kubernetes 1.28 lists it as required, and JobSet's schema with it
              onPodConditions: []
        template:
          metadata:
            labels:
              {{- include "b1k.training.labels" . | nindent 14 }}
          spec:
            {{- include "b1k.podSecurity" . | nindent 12 }}
            serviceAccountName: {{ include "b1k.runner.name" . }}
            restartPolicy: Never
            # Told that its node goes, training saves its state.
            terminationGracePeriodSeconds: 300
            {{- if .Values.priorityClasses.create }}
            priorityClassName: {{ include "b1k.fullname" . }}-runs
            {{- end }}
            {{- with $training.nodeSelector }}
            nodeSelector:
              {{- toYaml . | nindent 14 }}
            {{- end }}
            {{- with $training.tolerations }}
            tolerations:
              {{- toYaml . | nindent 14 }}
            {{- end }}
            containers:
              - name: trainer
                image: {{ include "b1k.image" (dict "root" . "role" "trainer") }}
                {{- include "b1k.containerSecurity" . | nindent 16 }}
                command: [python3, -m, components.train, --workspace, /workspace]
                args:
                  {{- toYaml $training.arguments | nindent 18 }}
                env:
                  - name: JOBSET_NAME
                    valueFrom:
                      fieldRef: {fieldPath: "metadata.labels['jobset.sigs.k8s.io/jobset-name']"}
                  - name: JAX_COORDINATOR_ADDRESS
                    value: $(JOBSET_NAME)-nodes-0-0.$(JOBSET_NAME):8476
                  - name: JAX_NUM_PROCESSES
                    value: {{ $training.nodes | quote }}
                  - name: JAX_PROCESS_ID
                    valueFrom:
                      fieldRef: {fieldPath: "metadata.annotations['batch.kubernetes.io/job-completion-index']"}
                  {{- with .Values.wandb.secret }}
                  - name: WANDB_API_KEY
                    valueFrom:
                      secretKeyRef: {name: {{ . }}, key: WANDB_API_KEY}
                  {{- end }}
                  {{- range $name := keys $training.environment | sortAlpha }}
                  - name: {{ $name }}
                    value: {{ index $training.environment $name | quote }}
                  {{- end }}
                envFrom:
                  - configMapRef: {name: {{ include "b1k.fullname" . }}-settings}
                resources:
                  requests:
                    cpu: {{ $training.resources.cpu | quote }}
                    memory: {{ $training.resources.memory }}
                    nvidia.com/gpu: {{ $training.gpusPerNode }}
                    {{- with $training.extraResources }}
                    {{- toYaml . | nindent 20 }}
                    {{- end }}
                  # no limit of CPUs, which would only slow it down
                  limits:
                    memory: {{ $training.resources.memory }}
                    nvidia.com/gpu: {{ $training.gpusPerNode }}
                    {{- with $training.extraResources }}
                    {{- toYaml . | nindent 20 }}
                    {{- end }}
                volumeMounts:
                  - {name: workspace, mountPath: /workspace}
                  - {name: shm, mountPath: /dev/shm}
                  - {name: tmp, mountPath: /tmp}
            volumes:
              - name: workspace
                persistentVolumeClaim:
                  claimName: {{ include "b1k.storage.claimName" (dict "root" . "name" "workspace") }}
              - name: shm
                emptyDir: {medium: Memory, sizeLimit: {{ $training.resources.sharedMemory }}}
              - name: tmp
                emptyDir: {sizeLimit: 10Gi}
{{- end -}}
