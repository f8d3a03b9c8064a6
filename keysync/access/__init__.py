"""Permissions that a configuration needs in Azure, the roles that grant them, and the script that assigns them."""
