"""Where engines go next: a delivery written as what loads it, such as a model repository of Triton."""
