"""How much of the network's quality each choice costs: estimators, and the table on disk."""
