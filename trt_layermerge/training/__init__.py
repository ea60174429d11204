"""What a network is trained and judged on, and the loop that trains it."""
