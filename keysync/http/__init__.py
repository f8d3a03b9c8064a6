"""HTTP without Azure: proxies, TLS, sockets, Retry-After."""
