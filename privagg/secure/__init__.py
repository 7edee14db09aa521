"""How integer vectors are added by a party that cannot read them, and who can open the sum.

A new scheme takes seven files to read, in this order:

1. this docstring;
2. `scheme.py`, the public half of the contract: `Parameters`, `Fold`, `EncryptionKey`, `Scheme`;
3. `opening.py`, the secret half: `DecryptionKey`, `KeyGenerator`. Nothing that adds, drives or
   records a round imports it;
4. `plaintext.py`, a whole scheme in its shortest form;
5. `facts.py`, the checks that all schemes share;
6. `folding.py`, which makes a `Fold` of any running sum of `privagg.kernels`;
7. `tests/secure/contract.py`, the laws that prove it. `tests/secure/test_new_scheme.py` is a scheme
   from outside that keeps to them.

It supplies one class for each of `Parameters`, `EncryptionKey`, `DecryptionKey`, `Scheme` and
`KeyGenerator`, in a file of its own, and names the last two in its `pyproject.toml`::

    [project.entry-points."privagg.schemes"]
    mine = "my_package.mine:MyScheme"
    [project.entry-points."privagg.key_generators"]
    mine = "my_package.mine:MyKeyGenerator"

A configuration then says `[secure] scheme = "mine"`; nothing else in privagg knows schemes by name,
but that `privagg.audit.planned` rates the security of privagg's own. `bfv.py`, `ckks.py` (both on
`lattice.py`) and `paillier.py` (keys in `paillier_keys.py`) are the schemes that protect.

In `masked/` nobody holds a key that opens sums: a site's secret is a `MaskingKey`, an upload
carries attachments, and `Recovery` takes the masks off by what enough contributors release.
"""
