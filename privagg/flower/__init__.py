"""Everything that touches Flower: the apps it starts, the doors around other people's apps."""
