"""What passes between the parties in one round, and what does each of them do with it?

Read `round` first: the coordinator's side, phase by phase. Then the parties: `site` with `closing`,
`aggregator`, `key_holder`. `messages` says what they may say to each other, `frames` how that is
signed, and `in_memory` puts all of them side by side in one process.
"""
