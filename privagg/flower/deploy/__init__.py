"""A federation across machines: what it takes to join one and to start its processes."""
