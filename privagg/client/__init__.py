"""What happens at an institution: its data, its training, its charge, its upload."""
