"""The wire: clouds, credentials, the shared session, deadlines and retries, and failures as records."""
