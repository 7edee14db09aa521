"""Names of the parties that are no site, which no site may have; and what a run may be called."""

COORDINATOR, KEY_HOLDER = "coordinator", "key-holder"

RUN_ID = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"
"""A run's identifier is also the name of its folder."""
