"""What privacy costs: units, plans, integer noise, accountants, certified bounds and the ledger."""
