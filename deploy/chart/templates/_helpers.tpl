{{/* What more than one template uses. No objects. */}}

{{/* The image: by digest if there is one, else by tag. */}}
{{- define "zen-lead.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The arguments of the container, as a list in one line. */}}
{{- define "zen-lead.args" -}}
{{- $args := list "serve" -}}
{{- if .Values.certificates.secret -}}
{{- $args = append $args "--cert-dir=/certs" -}}
{{- end -}}
{{- concat $args .Values.args | toJson -}}
{{- end -}}

{{/* Labels of the monitoring objects. */}}
{{- define "zen-lead.monitoring.labels" -}}
app.kubernetes.io/name: zen-lead
{{- with .Values.monitoring.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}
