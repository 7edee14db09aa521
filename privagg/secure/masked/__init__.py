"""Masked sums: nobody holds a key, and only enough sites together open a sum.

A site adds to its packed integer a mask of its own and one in common with each of its neighbours,
which the neighbour takes off; so in a sum of all uploads only the own masks are left. It sends
shares of all these seeds along, under seal. Once a list of contributors stands, enough of them
release shares of the own seeds of those listed, and of the seeds that they have in common with
those that are gone; never both of one site.

Source: Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning",
CCS 2017 (double masking, shares); Bell et al., "Secure single-server aggregation with
(poly)logarithmic overhead", CCS 2020 (few neighbours). Argument: `proofs/masking.md`.

Read `rule` first: who must agree. Then `ring` and `graph`: who has masks in common. `sharing`,
`sealing`, `streams` and `seeds` are the primitives; `attachments` and `releases` what is sent.
`site` is a site's half, `recovery` the adder's, and `contradictions` says whom it leaves out;
`parameters` and `scheme` bind them to the contract of `privagg.secure`.
`seeds` and `site` are secret: no adder imports them.

What stays: a dishonest site can turn a sum into noise, and nobody can tell which: w bits fill the
range of a sum, so that no check of ranges sees it.
"""
