class LeaderElectionRecord:
    holder_identity: str | None
    lease_duration: str | None
