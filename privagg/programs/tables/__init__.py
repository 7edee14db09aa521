"""What programs that learn from tables share: bins of columns, and how right scores are."""
