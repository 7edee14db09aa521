"""A federation across machines: each party's folder, and what it takes to start its parts."""
