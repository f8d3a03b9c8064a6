"""The daemon's HTTP side: a status page, the same as JSON, two probes and the metrics. It reads snapshots, and changes nothing."""
