"""Who signs: a party's identity key, its owner's key, and the files that hold secrets."""
