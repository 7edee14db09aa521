"""Heart disease over four hospitals as a Flower app."""
