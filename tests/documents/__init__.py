"""The documents are held to their word: what they show is run, what they name is there."""
