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
{{ include "scannerjob-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
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

{{- /* Who gets a Role or ClusterRole: the end of every binding. */}}
{{- define "scannerjob-operator.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "scannerjob-operator.serviceAccountName" . }}
    namespace: {{ .Release.Namespace }}
{{- end }}
