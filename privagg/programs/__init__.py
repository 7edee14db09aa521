"""What can be asked of the engine: today, training by gradients."""
