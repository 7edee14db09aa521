"""What happens to records: read as declared, turned into gradients, evaluated where public."""
