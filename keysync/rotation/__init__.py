"""Replaces the keys of an account without an outage: decides what is next, proves a key, regenerates the idle one."""
