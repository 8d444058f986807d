{{- define "fieldpost.name" -}}
{{- .Values.name | default .Release.Name | trunc 46 | trimSuffix "-" -}}
{{- end -}}

{{- define "fieldpost.image" -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- end -}}

{{- define "fieldpost.selector" -}}
app.kubernetes.io/name: fieldpost
app.kubernetes.io/instance: {{ include "fieldpost.name" . | quote }}
{{- end -}}

{{- define "fieldpost.labels" -}}
{{ include "fieldpost.selector" . }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "fieldpost.annotations" -}}
fieldpost.dev/image: {{ include "fieldpost.image" . | quote }}
{{- with .Values.annotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "fieldpost.metadata" -}}
name: {{ include "fieldpost.name" . | quote }}
labels:
  {{- include "fieldpost.labels" . | nindent 2 }}
annotations:
  {{- include "fieldpost.annotations" . | nindent 2 }}
{{- end -}}

{{- /* A setting as text. Numbers of a values file are floats for Helm: a million came out as 1e+06. */ -}}
{{- define "fieldpost.text" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) -}}{{- int64 . -}}{{- else -}}{{- toString . -}}{{- end -}}
{{- end -}}

{{- /* The ConfigMap is named by its content, so that pods follow a change and old ones keep theirs. */ -}}
{{- define "fieldpost.config" -}}
{{- $lines := "" -}}
{{- range $key, $value := .Values.settings -}}
{{- $lines = printf "%s%s=%s\n" $lines $key (include "fieldpost.text" $value) -}}
{{- end -}}
{{- printf "%s-config-%s" (include "fieldpost.name" .) ($lines | sha256sum | trunc 10) -}}
{{- end -}}

{{- define "fieldpost.scaled" -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled -}}yes{{- end -}}
{{- end -}}
