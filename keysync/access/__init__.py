"""The Azure permissions that a configuration needs, the roles that grant them, and a script that assigns the roles."""
