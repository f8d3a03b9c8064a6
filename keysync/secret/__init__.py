"""Secrets: a type that never prints (`value`), comparison (`fingerprint`), redaction of text (`redact`, `encodings`), signing (`signing`), and access to the plain text (`reveal`)."""
