"""Who signs? A party's identity key, its owner's key, and the files that hold secrets.

Read `keys` first: an `Identity` signs, a `Roster` is what a party pins of the others. `owner` is
the key of the person who approves, `sealing` what that person alone can read; `secretfile` refuses
a secret that others could read or exchange.
"""
