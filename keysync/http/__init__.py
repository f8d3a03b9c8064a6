"""HTTP in general, nothing of Azure: proxies, TLS, sockets, Retry-After."""
