"""Access to Azure: clouds, credentials, clients, the shared session, retries, rate limits, circuit breakers and failures."""
