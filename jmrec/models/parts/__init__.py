"""What many models are made of."""
