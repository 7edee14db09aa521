"""What happens to records, and to nothing else that is private?

Read `declared` first (what is agreed on, in words), then `dpsgd`: sums of clipped per-record
gradients, as integers, by `ghost` (exact, mostly unformed), by `dense` (in exact arithmetic
throughout) or by `hooks` (Opacus'). `data`, `csvfile`, `features` and `loading` read records as
declared, each by itself; `models` builds a model from its name, `factories` imports code that an
owner approved; `rehearsal` tests that a model keeps records apart. `known` and `inspection` are for
the owner's eyes, `evaluate` for records declared public.
"""
