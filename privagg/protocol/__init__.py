"""One round, all parties side by side, and the messages between them."""
