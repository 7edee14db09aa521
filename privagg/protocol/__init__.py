"""What passes between the parties in one round, and what does each of them do with it?

Read `README.md` first, then `round`: the coordinator's side, phase by phase, and how a killed one
resumes. The other parties are `site`, `aggregator` and `key_holder`. `messages` says what they may
say to each other, `frames` how that is signed, `cohorts` whom a round asks, and `in_memory` puts
all of them side by side in one process.
"""
