"""What a federation agrees on: the file, checked, and what follows from it on this machine."""
