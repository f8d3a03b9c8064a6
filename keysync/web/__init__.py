"""The daemon's HTTP server: status page, status as JSON, two probes and metrics. It reads snapshots and changes nothing."""
