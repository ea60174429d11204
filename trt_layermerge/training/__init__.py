"""What a network is trained and evaluated on, and the loop that trains it."""
