"""Planning methods, one a file; ``base`` says what each must answer, ``registry`` names them."""
