"""How do frames travel in Flower's messages? The only package that imports flwr.

Read `transport` first: Flower's Grid as our transport. `directory` says which node is which party;
`grid` and `mod` are the doors for other people's strategies and apps, with `arrays` and `records`
for their data; `guard`, `gate` and `part` keep out what nobody approved; `inprocess` is Flower
without a network.
"""
