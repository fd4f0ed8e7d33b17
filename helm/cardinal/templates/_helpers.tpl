{{/* The name of everything: the release's, with the chart's unless it says so already. */}}
{{- define "cardinal.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- $name | trunc 55 | trimSuffix "-" -}}
{{- end }}

{{- define "cardinal.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "cardinal.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end }}

{{- define "cardinal.image" -}}
{{- $tag := printf ":%s" (.Values.image.tag | default .Chart.AppVersion) -}}
{{- $digest := printf "@%s" .Values.image.digest -}}
{{- .Values.image.repository }}{{ ternary $digest $tag (ne .Values.image.digest "") -}}
{{- end }}

{{- define "cardinal.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "cardinal.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "cardinal.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
