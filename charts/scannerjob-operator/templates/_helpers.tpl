{{- define "scannerjob-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "scannerjob-operator.fullname" -}}
{{- $name := include "scannerjob-operator.name" . }}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- default $full .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "scannerjob-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "scannerjob-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "scannerjob-operator.labels" -}}
{{- mergeOverwrite (include "scannerjob-operator.commonLabels" . | fromYaml) (include "scannerjob-operator.selectorLabels" . | fromYaml) | toYaml }}
{{- end }}

{{- /* Of what is no operator: the Deployment and the budget must not count it. */}}
{{- define "scannerjob-operator.commonLabels" -}}
{{- $own := dict
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/managed-by" .Release.Service
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") }}
{{- $selected := include "scannerjob-operator.selectorLabels" . | fromYaml | keys }}
{{- merge $own (omit .Values.commonLabels (first $selected) (last $selected)) | toYaml }}
{{- end }}

{{- define "scannerjob-operator.serviceAccountName" -}}
{{- default (.Values.serviceAccount.create | ternary (include "scannerjob-operator.fullname" .) "default") .Values.serviceAccount.name }}
{{- end }}

{{- define "scannerjob-operator.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* What every pod of the chart has: as the restricted Pod Security Standard wants it. */}}
{{- define "scannerjob-operator.podDefaults" -}}
serviceAccountName: {{ include "scannerjob-operator.serviceAccountName" . }}
automountServiceAccountToken: true
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "scannerjob-operator.containerDefaults" -}}
image: {{ include "scannerjob-operator.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
  readOnlyRootFilesystem: true
{{- end }}

{{- /* Who gets a Role or ClusterRole: the end of every binding. */}}
{{- define "scannerjob-operator.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "scannerjob-operator.serviceAccountName" . }}
    namespace: {{ .Release.Namespace }}
{{- end }}
