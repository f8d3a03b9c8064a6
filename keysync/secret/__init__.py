"""Values of secrets: how they are held (`value`), compared (`fingerprint`), scrubbed from text (`redact`), signed with (`signing`) and sent (`reveal`)."""
