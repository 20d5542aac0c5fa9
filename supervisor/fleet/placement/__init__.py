"""What is loaded when: models start when they are wanted, yield when another needs their place, and rest when nobody asks for them."""
