"""Who carries the messages between the parties."""
