"""When passes start."""
