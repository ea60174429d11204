"""Two states of one thing compared: profiles of a device, deliveries of a network. Nothing is measured here."""
