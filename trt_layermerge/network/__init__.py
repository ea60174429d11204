"""What a CNN is to us: a model spec becomes a normal form, and the normal form becomes chains of layers."""
