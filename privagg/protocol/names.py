"""Names of the parties that are no site; no site may be called so."""

COORDINATOR, KEY_HOLDER = "coordinator", "key-holder"
