"""From floats to bounded integers and back: the grid, its sensitivity, its capacity."""
