"""A federation whose parties live on different machines: each one opened from its own folder."""
